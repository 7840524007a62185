//! The program as it is run.

use std::io::Read as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The program as it is run, with its log.
pub(crate) struct Program(pub(crate) Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a command that ends by itself. Returns whether it succeeded, and what it said on its standard error.
pub(crate) fn run(command: &mut Command) -> (bool, String) {
    let mut program = Program(command.stderr(Stdio::piped()).spawn().unwrap());
    let begun = Instant::now();
    while program.0.try_wait().unwrap().is_none() {
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "it does not end: {command:?}"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    let mut said = String::new();
    let mut stderr = program.0.stderr.take().unwrap();
    stderr.read_to_string(&mut said).unwrap();
    (program.0.wait().unwrap().success(), said)
}
