//! Connections to the database that are cut.

use sqlx::Connection as _;

use super::support::services::Cable;

/// How connections to a store are cut: by the database, or on the way to it.
pub(crate) enum Cut {
    Nothing,
    Postgres(Cable, String),
    Redis(Cable, String),
}

impl Cut {
    pub(crate) async fn all(&self, on_the_way: bool) {
        match self {
            Self::Nothing => {}
            Self::Postgres(cable, _) | Self::Redis(cable, _) if on_the_way => cable.cut(),
            Self::Postgres(_, url) => {
                let mut connection = sqlx::PgConnection::connect(url).await.unwrap();
                sqlx::query(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                    WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()",
                )
                .execute(&mut connection)
                .await
                .unwrap();
            }
            Self::Redis(_, url) => {
                let client = redis::Client::open(url.as_str()).unwrap();
                // On a busy machine Redis may not answer in time. Then nothing is cut this time.
                let Ok(mut connection) = client.get_multiplexed_async_connection().await else {
                    return;
                };
                let mut kill = redis::cmd("CLIENT");
                let kill = kill.arg("KILL").arg("TYPE").arg("normal");
                let kill = kill.arg("SKIPME").arg("yes");
                let _ = kill.exec_async(&mut connection).await;
            }
        }
    }
}
