//! Starts the tool, watches it, and asks it to end.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// How long anything may take. Everything takes far less.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A home folder for one test, and the server to sign in to.
pub(crate) struct Home {
    folder: TempDir,
    issuer: String,
}

impl Home {
    pub(crate) fn new(issuer: &str) -> Self {
        Self {
            folder: TempDir::new().unwrap(),
            issuer: issuer.to_owned(),
        }
    }

    /// Starts the tool.
    pub(crate) fn start(&self, arguments: &[&str]) -> Tool {
        self.start_with(arguments, &[])
    }

    /// Starts the tool with more in its environment.
    pub(crate) fn start_with(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Tool {
        Tool::start(self.command(arguments, environment))
    }

    pub(crate) fn command(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_example-cli"));
        command
            .args(arguments)
            .env_clear()
            .env("HOME", self.folder.path())
            .env("EXAMPLE_CLI_ISSUER", &self.issuer)
            .envs(environment.iter().copied());
        command
    }

    /// Runs the tool to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        self.start(arguments).end()
    }

    /// Returns the names of all files, except the locks, which stay and are empty.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut files = self.files();
        files.retain(|path| path.extension().is_none_or(|extension| extension != "lock"));
        let names = files.iter().filter_map(|path| path.file_name());
        names
            .map(|name| name.to_string_lossy().into_owned())
            .collect()
    }

    /// Returns the only file of this name.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        let mut files = self.files();
        files.retain(|path| path.file_name().is_some_and(|file| file == name));
        assert_eq!(files.len(), 1, "{name}: {files:?}");
        files.remove(0)
    }

    /// Returns whether nothing was ever made here.
    pub(crate) fn is_untouched(&self) -> bool {
        std::fs::read_dir(self.folder.path())
            .unwrap()
            .next()
            .is_none()
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        walk(self.folder.path(), &mut files);
        files
    }

    pub(crate) fn read(&self, name: &str) -> Value {
        serde_json::from_slice(&std::fs::read(self.file(name)).unwrap()).unwrap()
    }

    pub(crate) fn write(&self, name: &str, value: &Value) {
        std::fs::write(self.file(name), value.to_string()).unwrap();
    }
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, files);
        } else {
            files.push(path);
        }
    }
}

/// The tool, running.
pub(crate) struct Tool {
    child: Child,
    out: Stream,
    err: Stream,
}

impl Tool {
    pub(crate) fn start(mut command: Command) -> Self {
        command.stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let out = Stream::of(child.stdout.take().unwrap());
        let err = Stream::of(child.stderr.take().unwrap());
        Self { child, out, err }
    }

    /// Returns the user code, once it is shown as text or in JSON.
    pub(crate) fn user_code(&self) -> String {
        wait_for("the user code", || {
            let ended = self.err.has_ended();
            let text = self.err.text() + &self.out.text();
            assert!(
                !ended || text.contains("user_code") || text.contains("the code:"),
                "it has ended: {text}"
            );
            let after = text.split_once("enter the code: ");
            let after = after.or_else(|| text.split_once(r#""user_code":""#))?.1;
            let end = after.find(['\n', '"'])?;
            Some(after[..end].to_owned())
        })
    }

    /// Waits until the tool has said this.
    pub(crate) fn says(&self, text: &str) {
        wait_for(text, || {
            let said = self.err.text() + &self.out.text();
            said.contains(text).then_some(())
        });
    }

    /// Sends a signal by its name.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let killed = Command::new("kill").args(["-s", name, &id]).status();
        assert!(killed.unwrap().success());
    }

    /// Waits until the tool waits for a lock that another process has.
    pub(crate) fn waits_for_a_lock(&self) {
        let id = self.child.id().to_string();
        wait_for("the lock", || {
            let locks = std::fs::read_to_string("/proc/locks").unwrap();
            let waits = |line: &str| line.contains("->") && line.split(' ').any(|word| word == id);
            locks.lines().any(waits).then_some(())
        });
    }

    /// Waits until the tool has ended, and returns what it said.
    pub(crate) fn end(mut self) -> Ended {
        let status = wait_for("the end", || self.child.try_wait().unwrap());
        Ended {
            code: status.code(),
            out: self.out.end(),
            err: self.err.end(),
        }
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The tool, ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// `None` if a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ended {
    /// Checks the exit code.
    #[track_caller]
    pub(crate) fn with(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        self
    }

    /// Returns the events of `--json`. Asserts that nothing else was said.
    #[track_caller]
    pub(crate) fn events(&self) -> Vec<Value> {
        assert_eq!(self.err, "", "under --json everything is an event");
        let events = self.out.lines().map(serde_json::from_str);
        let events: Vec<Value> = events.collect::<Result<_, _>>().unwrap();
        assert!(
            events.iter().all(|event| event["event"].is_string()),
            "{events:?}"
        );
        events
    }

    /// Asserts that none of these secrets was said.
    #[track_caller]
    pub(crate) fn without(self, secrets: &[String]) -> Self {
        assert!(!secrets.is_empty());
        for secret in secrets {
            assert!(!secret.is_empty());
            assert!(
                !self.out.contains(secret) && !self.err.contains(secret),
                "{self:?}"
            );
        }
        self
    }
}

/// What a process writes, read as it comes.
struct Stream {
    text: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl Stream {
    fn of(mut pipe: impl Read + Send + 'static) -> Self {
        let text = Arc::new(Mutex::new(String::new()));
        let writer = Arc::clone(&text);
        let reader = std::thread::spawn(move || {
            let mut octets = [0; 4096];
            while let Ok(count @ 1..) = pipe.read(&mut octets) {
                let more = String::from_utf8_lossy(&octets[..count]);
                writer.lock().unwrap().push_str(&more);
            }
        });
        Self {
            text,
            reader: Some(reader),
        }
    }

    fn text(&self) -> String {
        self.text.lock().unwrap().clone()
    }

    fn has_ended(&self) -> bool {
        self.reader.as_ref().is_none_or(JoinHandle::is_finished)
    }

    fn end(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        self.text()
    }
}

/// Asks until there is an answer, for a bounded time.
#[track_caller]
pub(crate) fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < until, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
