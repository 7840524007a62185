//! The place of a store, and several servers that open it.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use device_flow::digest::{SessionKey, UserKey};
use device_flow::server::{
    Change, Inserted, Pace, RateLimited, Session, Store as _, Stored, Take, Unavailable, Write,
};
use example_server::store::Store;
use time::OffsetDateTime;
use tokio::task::JoinSet;

use super::services::{Service, Shared};
use super::site::Site;

/// Where a store is.
pub(crate) struct Home {
    pub(crate) url: String,
    /// Whether several processes share it.
    is_shared: bool,
    /// Whether it removes by itself what has expired.
    pub(crate) expires: bool,
    /// Whether the pace is in each process, where it outlives its session by an hour.
    has_paces_apart: bool,
    /// What must live as long as this value: a folder, a service.
    _kept: Box<dyn Any + Send>,
}

static POSTGRES: Shared = Shared::new();
static REDIS: Shared = Shared::new();

impl Home {
    pub(crate) fn new(url: impl Into<String>, kept: impl Any + Send) -> Self {
        Self {
            url: url.into(),
            is_shared: true,
            expires: false,
            has_paces_apart: false,
            _kept: Box::new(kept),
        }
    }

    #[expect(clippy::unnecessary_wraps, reason = "as those that may be missing")]
    pub(crate) fn memory() -> Option<Self> {
        let is_shared = false;
        let home = Self::new("memory:", ());
        Some(Self { is_shared, ..home })
    }

    #[expect(clippy::unnecessary_wraps, reason = "as those that may be missing")]
    pub(crate) fn sqlite() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("db").display());
        let has_paces_apart = true;
        let home = Self::new(url, folder);
        Some(Self {
            has_paces_apart,
            ..home
        })
    }

    pub(crate) fn postgres() -> Option<Self> {
        let service = POSTGRES.start(Service::postgres)?;
        Some(Self::new(service.url(), service.clone()))
    }

    pub(crate) fn redis() -> Option<Self> {
        let service = REDIS.start(Service::redis)?;
        let home = Self::new(service.url(), service.clone());
        let expires = true;
        Some(Self { expires, ..home })
    }

    /// Opens the store as several servers.
    pub(crate) async fn open(&self) -> Servers {
        let mut sites = Vec::new();
        for _ in 0..if self.is_shared { 3 } else { 1 } {
            let store = Store::open(&self.url, None).await.unwrap();
            sites.push(Arc::new(Site::new(store)));
        }
        Servers {
            sites,
            has_paces_apart: self.has_paces_apart,
            next: AtomicUsize::new(0),
        }
    }
}

/// Several servers on one store.
pub(crate) struct Servers {
    pub(crate) sites: Vec<Arc<Site>>,
    has_paces_apart: bool,
    next: AtomicUsize,
}

impl Servers {
    pub(crate) fn one(&self) -> &Site {
        &self.sites[0]
    }

    pub(crate) fn store(&self) -> &Store {
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        &self.sites[next % self.sites.len()].store
    }

    /// Runs this many tasks at once, each on the next server. Returns the answers in order.
    pub(crate) async fn at_once<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
        &self,
        count: usize,
        task: impl Fn(Arc<Site>, usize) -> F,
    ) -> Vec<T> {
        let mut tasks = JoinSet::new();
        for number in 0..count {
            let task = task(self.sites[number % self.sites.len()].clone(), number);
            tasks.spawn(async move { (number, task.await) });
        }
        let mut answers = tasks.join_all().await;
        answers.sort_by_key(|(number, _)| *number);
        answers.into_iter().map(|(_, answer)| answer).collect()
    }
}

/// Each operation goes to the next server. A pace that is kept apart is not in the database that they share, so the contract is checked
/// without it.
impl device_flow::server::Store for Servers {
    async fn insert(&self, session: &Session) -> Result<Inserted, Unavailable> {
        self.store().insert(session).await
    }

    async fn load(&self, key: &SessionKey) -> Result<Option<Stored>, Unavailable> {
        self.store().load(key).await
    }

    async fn load_by_user_key(&self, key: &UserKey) -> Result<Option<Stored>, Unavailable> {
        self.store().load_by_user_key(key).await
    }

    async fn change(&self, change: Change<'_>) -> Result<Write, Unavailable> {
        self.store().change(change).await
    }

    async fn save_pace(&self, key: &SessionKey, pace: Pace) {
        if !self.has_paces_apart {
            self.store().save_pace(key, pace).await;
        }
    }

    async fn take(&self, take: Take) -> Result<Result<(), RateLimited>, Unavailable> {
        self.store().take(take).await
    }

    async fn purge(&self, now: OffsetDateTime) -> Result<usize, Unavailable> {
        self.store().purge(now).await
    }
}

/// Declares the tests for every store.
macro_rules! on_every_store {
    ($($test:ident),* $(,)?) => {
        $crate::support::home::on_every_store!(@ memory [$($test)*]);
        $crate::support::home::on_every_store!(@ sqlite [$($test)*]);
        $crate::support::home::on_every_store!(@ postgres [$($test)*]);
        $crate::support::home::on_every_store!(@ redis [$($test)*]);
    };
    (@ $store:ident [$($test:ident)*]) => {
        mod $store {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $test() {
                    if let Some(home) = $crate::support::home::Home::$store() {
                        super::$test(home).await;
                    }
                }
            )*
        }
    };
}
pub(crate) use on_every_store;
