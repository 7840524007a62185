//! Ctrl-C.
//!
//! Rules:
//! 1. While nothing is at stake it ends the command at once.
//! 2. Whoever has tokens in hand, or anything else to bring to an end, holds it off first, and is told when it comes.
//! 3. The second time it ends the command, whatever is at stake.
//!
//! SIGTERM and SIGHUP stay as they are: a login that they kill can be resumed.

use core::time::Duration;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::ending::{Ending, Exit};
use crate::screen::Screen;

/// What Ctrl-C does at the moment.
#[derive(Clone, Default)]
pub(crate) struct Interrupt(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    came: Condvar,
}

#[derive(Default)]
struct State {
    came: bool,
    /// Who holds it off, told when it comes.
    holder: Option<Box<dyn Fn() + Send>>,
}

impl Interrupt {
    /// Listens from now on.
    pub(crate) fn install(screen: Screen) -> Self {
        let interrupt = Self::default();
        let heard = interrupt.clone();
        // Where this does not work, the system ends the process its own way.
        let _ = ctrlc::set_handler(move || heard.comes(screen));
        interrupt
    }

    fn comes(&self, screen: Screen) {
        screen.pass_echo();
        let mut state = self.lock();
        if state.came {
            exit(); // asked twice
        }
        state.came = true;
        self.0.came.notify_all();
        if let Some(told) = &state.holder {
            told();
            return;
        }
        // The lock is held to the end: nobody begins now what would have to be brought to an end.
        screen.ending(&Ending::cancelled());
        exit()
    }

    /// Holds it off, from now on and for good.
    pub(crate) fn hold_off(&self, told: impl Fn() + Send + 'static) {
        self.lock().holder = Some(Box::new(told));
    }

    /// An error where it has come and was held off.
    pub(crate) fn check(&self) -> Result<(), Ending> {
        self.pause(Duration::ZERO)
    }

    /// Waits, until it comes at most.
    pub(crate) fn pause(&self, span: Duration) -> Result<(), Ending> {
        let waited = self
            .0
            .came
            .wait_timeout_while(self.lock(), span, |state| !state.came);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if state.came {
            Err(Ending::cancelled())
        } else {
            Ok(())
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn exit() -> ! {
    std::process::exit(Exit::Cancelled.code().into())
}
