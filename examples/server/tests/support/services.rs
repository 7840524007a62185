//! Private instances of the databases. Each is in a temporary folder, and is reached by a socket in it.
//!
//! Rules:
//! 1. An instance lives as long as its value, and also ends if the test dies.
//! 2. If a program is missing, one line says so and how to get it. With `REQUIRE_ALL` set, that is a failure.
//! 3. Waits have a bound.

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, Weak};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::io::copy;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::missing;

/// A running database.
#[derive(Debug)]
pub(crate) struct Service {
    keeper: Child,
    folder: TempDir,
    socket: PathBuf,
    kind: Kind,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Postgres,
    Redis,
}

impl Kind {
    /// Returns the URL of a socket. The socket of Postgres has a fixed name, so its URL names only the folder.
    fn url(self, socket: &Path) -> String {
        match self {
            Self::Postgres => {
                let folder = socket.parent().unwrap_or(socket).display();
                format!("postgres:///postgres?user=test&host={folder}")
            }
            Self::Redis => format!("redis+unix://{}", socket.display()),
        }
    }
}

/// A shell script. It starts the program after its first argument, which is a signal. When its input ends, it sends the signal to the
/// program. The input ends when the process that started the script drops the service, or dies.
const KEEPER: &str = r#"signal=$1; shift; "$@" & read -r _; kill -s "$signal" $!; wait $!"#;

/// How long a database may take to start.
const STARTS_WITHIN: Duration = Duration::from_secs(30);

impl Service {
    /// Starts a Postgres, or returns `None` if it is not installed.
    pub(crate) fn postgres() -> Option<Self> {
        Self::postgres_with(&["fsync=off"]) // no test cuts the power
    }

    /// Starts a Postgres with these settings.
    pub(crate) fn postgres_with(settings: &[&str]) -> Option<Self> {
        let Some(programs) = folder_of("initdb") else {
            return missing("Postgres is missing: apt-get install postgresql");
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        // Postgres refuses to run as root.
        let mut user = Vec::new();
        if output("id", &["-u"]) == "0" {
            let name = ["postgres", "nobody"].into_iter();
            let mut known = name.filter(|name| !output("id", &["-u", name]).is_empty());
            let name = known.next().expect("root needs a user to run Postgres as");
            let [uid, gid] = ["-u", "-g"].map(|which| output("id", &[which, name]));
            chown(path, uid.parse().ok(), gid.parse().ok()).unwrap();
            user.extend(["setpriv".to_owned(), format!("--reuid={uid}")]);
            user.extend([format!("--regid={gid}"), "--clear-groups".to_owned()]);
        }
        let run = |program: &str, arguments: &[&str]| {
            let program = programs.join(program).to_string_lossy().into_owned();
            let arguments = arguments.iter().map(|&one| one.to_owned());
            let command: Vec<_> = user.iter().cloned().chain([program]).collect();
            command.into_iter().chain(arguments).collect::<Vec<_>>()
        };
        let data = path.join("data").to_string_lossy().into_owned();
        let initdb = run(
            "initdb",
            &[
                "-D",
                &data,
                "-U",
                "test",
                "-A",
                "trust",
                "--no-sync",
                "-E",
                "UTF8",
            ],
        );
        let made = command(&initdb, path).output().unwrap();
        assert!(made.status.success(), "initdb: {made:?}");

        let socket = path.to_string_lossy().into_owned();
        let mut arguments = vec!["-D", &data, "-k", &socket, "-c", "listen_addresses="];
        arguments.extend(settings.iter().flat_map(|setting| ["-c", setting]));
        let mut service = Self {
            keeper: keeper("QUIT", &run("postgres", &arguments), path),
            kind: Kind::Postgres,
            socket: path.join(".s.PGSQL.5432"),
            folder,
        };
        let ready = run("pg_isready", &["-q", "-h", &socket]);
        service.wait_for(|path| command(&ready, path).status().is_ok_and(|it| it.success()));
        Some(service)
    }

    /// Starts a Redis, which writes everything to its log, or returns `None` if it is not installed.
    pub(crate) fn redis() -> Option<Self> {
        let Some(programs) = folder_of("redis-server") else {
            return missing("Redis is missing: apt-get install redis-server");
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let socket = path.join("socket").to_string_lossy().into_owned();
        let program = programs.join("redis-server").to_string_lossy().into_owned();
        let mut run = vec![program];
        let settings = [
            ["--port", "0"],
            ["--unixsocket", &socket],
            ["--appendonly", "yes"],
            ["--save", ""],
        ];
        run.extend(settings.iter().flatten().map(|&one| one.to_owned()));
        let mut service = Self {
            keeper: keeper("KILL", &run, path),
            kind: Kind::Redis,
            socket: path.join("socket"),
            folder,
        };
        service.wait_for(|_| {
            redis::Client::open(format!("redis+unix://{socket}"))
                .and_then(|client| client.get_connection())
                .and_then(|mut connection| redis::cmd("PING").exec(&mut connection))
                .is_ok()
        });
        Some(service)
    }

    /// Returns the URL for a server.
    pub(crate) fn url(&self) -> String {
        self.kind.url(&self.socket)
    }

    /// Returns a way to the service that can be cut, and its URL.
    pub(crate) fn through(&self, folder: &Path) -> (String, Cable) {
        let socket = folder.join(self.socket.file_name().unwrap());
        let url = self.kind.url(&socket);
        (url, Cable::new(&socket, &self.socket))
    }

    fn wait_for(&mut self, is_ready: impl Fn(&Path) -> bool) {
        let started = Instant::now();
        while !is_ready(self.folder.path()) {
            let log = || std::fs::read_to_string(self.folder.path().join("log"));
            let ended = self.keeper.try_wait().unwrap();
            let is_late = started.elapsed() > STARTS_WITHIN;
            assert!(ended.is_none() && !is_late, "no start: {:?}", log());
            sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

/// A way to a service that can be cut. It is there for as long as its value.
#[derive(Debug)]
pub(crate) struct Cable {
    faults: watch::Sender<Fault>,
    listening: JoinHandle<()>,
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    Cut,
    Silence,
}

/// For how long requests still reach the service when no answer comes back any more.
const ONE_WAY: Duration = Duration::from_millis(20);

impl Cable {
    fn new(near: &Path, far: &Path) -> Self {
        let listener = UnixListener::bind(near).unwrap();
        let (faults, fault) = watch::channel(Fault::Cut);
        let far = far.to_owned();
        let listening = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(forward(near, far.clone(), fault.clone()));
            }
        });
        Self { faults, listening }
    }

    /// Cuts every connection, in the worst way: the service does what it was asked, but nobody learns that.
    pub(crate) fn cut(&self) {
        self.faults.send_replace(Fault::Cut);
    }

    /// Lets every connection fall silent, without a sign that it is dead. New connections work.
    pub(crate) fn silence(&self) {
        self.faults.send_replace(Fault::Silence);
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

async fn forward(near: UnixStream, far: PathBuf, mut fault: watch::Receiver<Fault>) {
    let Ok(far) = UnixStream::connect(far).await else {
        return;
    };
    fault.mark_unchanged();
    let ((mut from_near, mut to_near), (mut from_far, mut to_far)) =
        (near.into_split(), far.into_split());
    let mut requests = pin!(copy(&mut from_near, &mut to_far));
    tokio::select! {
        _ = &mut requests => {}
        _ = copy(&mut from_far, &mut to_near) => {}
        Ok(()) = fault.changed() => {
            let fault = *fault.borrow();
            match fault {
                Fault::Cut => drop(timeout(ONE_WAY, requests).await),
                Fault::Silence => std::future::pending().await,
            }
        }
    }
}

/// A service that tests share while they run at once. The last one ends it.
pub(crate) struct Shared(Mutex<Weak<Service>>);

impl Shared {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(Weak::new()))
    }

    pub(crate) fn start(&self, start: impl FnOnce() -> Option<Service>) -> Option<Arc<Service>> {
        let mut shared = self.0.lock().unwrap();
        if let Some(service) = shared.upgrade() {
            return Some(service);
        }
        let service = Arc::new(start()?);
        *shared = Arc::downgrade(&service);
        Some(service)
    }
}

/// Returns the folder of a program: one of the path, or where Debian keeps the programs of Postgres.
fn folder_of(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut debian: Vec<_> = std::fs::read_dir("/usr/lib/postgresql")
        .map(|versions| {
            versions
                .flatten()
                .map(|one| one.path().join("bin"))
                .collect()
        })
        .unwrap_or_default();
    debian.sort();
    let mut folders = std::env::split_paths(&path).chain(debian.into_iter().rev());
    let folder = folders.find(|folder| folder.join(program).is_file())?;
    // If the program is a link, the other programs are where the link leads.
    let program = folder.join(program).canonicalize().ok()?;
    Some(program.parent()?.to_owned())
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn command(line: &[String], folder: &Path) -> Command {
    let [program, arguments @ ..] = line else {
        panic!("no program");
    };
    let mut command = Command::new(program);
    command.args(arguments).current_dir(folder);
    command
}

fn keeper(signal: &str, line: &[String], folder: &Path) -> Child {
    let log = std::fs::File::create(folder.join("log")).unwrap();
    log.set_permissions(Permissions::from_mode(0o666)).unwrap();
    Command::new("sh")
        .args(["-c", KEEPER, "sh", signal])
        .args(line)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}
