//! The files of this tool.
//!
//! Rules:
//! 1. There is one directory for each pair of a server and a client. Only this user can enter it. The first lock creates it, so a command
//!    that only reads creates nothing.
//! 2. A file is written beside its place, with mode 0600, and then moved there, so a reader sees the old or the new one. The writer holds a
//!    lock, so one temporary name is enough. If a crash leaves a temporary file, the next writer removes it.
//! 3. The operating system holds each lock, and ends it with its process, even if the process crashes.

use core::fmt::Write as _;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy as _;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

use crate::ending::{Ending, Exit};

/// How many bytes of a file are read at most. Responses of servers have at most one megabyte.
const MAX_FILE: u64 = 4 * 1024 * 1024;

/// The files of one server and client.
#[derive(Clone)]
pub(crate) struct Store(PathBuf);

/// A lock, held until it is dropped.
#[must_use]
pub(crate) struct Lock {
    _held: File,
}

impl Store {
    pub(crate) fn of(issuer: &str, client_id: &str) -> Result<Self, Ending> {
        let home = etcetera::choose_base_strategy().map_err(|_| {
            Ending::new(
                Exit::Failed,
                "There is no home directory to keep the login in.",
            )
        })?;
        let state = home.state_dir().unwrap_or_else(|| home.data_dir());
        let directory = state
            .join("device-flow-example-cli")
            .join(name(issuer, client_id));
        Ok(Self(directory))
    }

    /// Returns whether there is such a file.
    pub(crate) fn holds(&self, name: &str) -> Result<bool, Ending> {
        for path in [self.beside(name), self.0.join(name)] {
            match path.try_exists() {
                Ok(false) => {}
                Ok(true) => return Ok(true),
                Err(error) => return Err(failed("read", &path, &error)),
            }
        }
        Ok(false)
    }

    /// Returns the content of a file, if there is one.
    pub(crate) fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, Ending> {
        let path = self.0.join(name);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("read", &path, &error)),
        };
        let mut octets = Vec::new();
        let read = file.take(MAX_FILE).read_to_end(&mut octets);
        read.map_err(|error| failed("read", &path, &error))?;
        match serde_json::from_slice(&octets) {
            Ok(value) => Ok(Some(value)),
            // The error of the parser could quote what it read.
            Err(_) => Err(self.not_understood(name)),
        }
    }

    /// Returns the ending for a file that this tool cannot understand.
    pub(crate) fn not_understood(&self, name: &str) -> Ending {
        let path = self.0.join(name);
        let path = path.display();
        let sentence =
            format!("{path} could not be understood: it is damaged, or of another version.");
        Ending::new(Exit::Failed, sentence)
    }

    /// Replaces a file. The caller holds the lock for that file.
    pub(crate) fn write<T: Serialize>(&self, name: &str, value: &T) -> Result<(), Ending> {
        let path = self.0.join(name);
        let beside = self.beside(name);
        let write = || -> io::Result<()> {
            // A file that a crash left there would keep its mode, because only a new file gets the mode.
            remove(&beside)?;
            let mut file = private().create_new(true).open(&beside)?;
            file.write_all(&serde_json::to_vec(value)?)?;
            file.sync_all()?;
            std::fs::rename(&beside, &path)
        };
        write().map_err(|error| failed("written", &path, &error))
    }

    /// Removes a file, if there is one.
    pub(crate) fn remove(&self, name: &str) -> Result<(), Ending> {
        for path in [self.beside(name), self.0.join(name)] {
            remove(&path).map_err(|error| failed("removed", &path, &error))?;
        }
        Ok(())
    }

    fn beside(&self, name: &str) -> PathBuf {
        self.0.join(format!("{name}.new"))
    }

    /// Takes a lock. It waits while another process holds the lock.
    pub(crate) fn lock(&self, name: &str) -> Result<Lock, Ending> {
        let (file, path) = self.lock_file(name)?;
        file.lock()
            .map_err(|error| failed("locked", &path, &error))?;
        Ok(Lock { _held: file })
    }

    /// Takes a lock, or returns `None` if another process holds it.
    pub(crate) fn try_lock(&self, name: &str) -> Result<Option<Lock>, Ending> {
        let (file, path) = self.lock_file(name)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Lock { _held: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(failed("locked", &path, &error)),
        }
    }

    /// Opens a lock file. It is never removed, because then two processes could lock two files with the same name.
    fn lock_file(&self, name: &str) -> Result<(File, PathBuf), Ending> {
        let mut builder = DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        let made = builder.create(&self.0);
        made.map_err(|error| failed("made", &self.0, &error))?;
        let path = self.0.join(name);
        match private().create(true).open(&path) {
            Ok(file) => Ok((file, path)),
            Err(error) => Err(failed("opened", &path, &error)),
        }
    }
}

/// Removes a file, if there is one.
fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Returns the options that create a file which only this user can read.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Returns the name of a directory. It is a digest, because an issuer has slashes and any length.
fn name(issuer: &str, client_id: &str) -> String {
    let digest = Sha256::new()
        .chain_update(issuer)
        .chain_update([0]) // neither contains it
        .chain_update(client_id)
        .finalize();
    let octets = digest.iter().take(16);
    octets.fold(String::new(), |mut name, octet| {
        let _ = write!(name, "{octet:02x}");
        name
    })
}

fn failed(what: &str, path: &Path, error: &io::Error) -> Ending {
    let path = path.display();
    Ending::new(
        Exit::Failed,
        format!("{path} could not be {what}: {error}."),
    )
}
