//! Handling Ctrl-C.
//!
//! Rules:
//! 1. Ctrl-C ends the command at once, if nothing can be lost.
//! 2. Code that has tokens in hand, or must finish something, first installs a handler. Ctrl-C then only calls that handler.
//! 3. The second Ctrl-C always ends the command.
//!
//! SIGTERM and SIGHUP are not handled, because a login that they kill can be resumed.

use core::time::Duration;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::ending::{Ending, Exit};
use crate::screen::Screen;

/// What Ctrl-C does now.
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
    /// What is called instead of ending the command.
    holder: Option<Box<dyn Fn() + Send>>,
}

impl Interrupt {
    /// Starts to handle Ctrl-C.
    pub(crate) fn install(screen: Screen) -> Self {
        let interrupt = Self::default();
        let heard = interrupt.clone();
        // If this fails, Ctrl-C ends the process in the way of the system.
        let _ = ctrlc::set_handler(move || heard.comes(screen));
        interrupt
    }

    fn comes(&self, screen: Screen) {
        screen.pass_echo();
        let mut state = self.lock();
        if state.came {
            exit(); // the second time
        }
        state.came = true;
        self.0.came.notify_all();
        if let Some(told) = &state.holder {
            told();
            return;
        }
        // The lock is held until the process ends, so no other thread can now begin work that must be finished.
        screen.ending(&Ending::cancelled());
        exit()
    }

    /// Installs this handler. From now on the first Ctrl-C does not end the command.
    pub(crate) fn hold_off(&self, told: impl Fn() + Send + 'static) {
        self.lock().holder = Some(Box::new(told));
    }

    /// Returns an error if Ctrl-C was pressed.
    pub(crate) fn check(&self) -> Result<(), Ending> {
        self.pause(Duration::ZERO)
    }

    /// Waits for `span`, or until Ctrl-C is pressed, which is an error.
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
