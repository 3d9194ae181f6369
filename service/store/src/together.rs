//! Changes of many callers in one transaction. With SQLite every commit waits for the disk, since what is acknowledged is
//! durable, and there is one writer: when a thousand devices connect, or report, in the same second, a thousand such waits
//! one behind the other are more than a second. Here whoever comes while a transaction is being written goes into the next
//! one, together with all the others who came, and is answered when that one is on the disk.
//!
//! Each change is a savepoint: one that fails undoes itself and nothing else. PostgreSQL does the same with the commits of
//! its connections; there a change is a transaction of its own.

use crate::Store;
use crate::database::Kind;
use sqlx::{Acquire, AnyConnection};
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use tokio::sync::oneshot;

/// Changes of one transaction.
const BATCH: usize = 256;

/// What a change does in its transaction.
pub(crate) type Change<'c, T> = Pin<Box<dyn Future<Output = sqlx::Result<T>> + Send + 'c>>;

/// A change that waits for its turn, whatever it gives.
trait Job: Send {
    /// Makes the change; whether it is to stay.
    fn run<'c>(&'c mut self, connection: &'c mut AnyConnection) -> Pin<Box<dyn Future<Output = bool> + Send + 'c>>;
    /// Tells the caller.
    fn answer(self: Box<Self>, committed: &sqlx::Result<()>);
}

struct Waiting<T, F> {
    change: Option<F>,
    outcome: Option<sqlx::Result<T>>,
    caller: oneshot::Sender<sqlx::Result<T>>,
}

impl<T, F> Job for Waiting<T, F>
where
    T: Send + 'static,
    F: for<'c> FnOnce(&'c mut AnyConnection) -> Change<'c, T> + Send + 'static,
{
    fn run<'c>(&'c mut self, connection: &'c mut AnyConnection) -> Pin<Box<dyn Future<Output = bool> + Send + 'c>> {
        Box::pin(async move {
            let Some(change) = self.change.take() else { return false };
            let outcome = change(connection).await;
            let stays = outcome.is_ok();
            self.outcome = Some(outcome);
            stays
        })
    }

    fn answer(self: Box<Self>, committed: &sqlx::Result<()>) {
        let failed =
            |e: &dyn std::fmt::Display| sqlx::Error::Io(std::io::Error::other(format!("the common transaction: {e}")));
        let answer = match (self.outcome, committed) {
            // It failed for itself, whatever became of the others.
            (Some(Err(own)), _) => Err(own),
            (Some(Ok(value)), Ok(())) => Ok(value),
            (_, Err(e)) => Err(failed(e)),
            (None, Ok(())) => Err(failed(&"the change was not made")),
        };
        // Whoever does not wait any more does not mind.
        let _ = self.caller.send(answer);
    }
}

#[derive(Default)]
struct Queue {
    jobs: Vec<Box<dyn Job>>,
    /// Whether a task is writing, which looks here again before it ends.
    writing: bool,
}

/// Those who wait.
#[derive(Default)]
pub(crate) struct Together {
    queue: Mutex<Queue>,
}

impl Together {
    /// True if the caller is to start the task that writes.
    fn push(&self, job: Box<dyn Job>) -> bool {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.jobs.push(job);
        !std::mem::replace(&mut queue.writing, true)
    }

    /// The next transaction's changes; none at the end of the task.
    fn take(&self) -> Vec<Box<dyn Job>> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.writing = !queue.jobs.is_empty();
        let count = queue.jobs.len().min(BATCH);
        queue.jobs.drain(..count).collect()
    }
}

impl Store {
    /// Makes a small change, in a transaction of its own or together with others; when this returns, it is on the disk.
    /// `lock` is that of [`Store::begin_exclusive`]; who writes nothing that follows from what it reads needs none. The
    /// change waits for nothing but the connection that it is given, and is made even if nobody waits for it any more.
    pub(crate) async fn change<T, F>(&self, lock: Option<&str>, change: F) -> sqlx::Result<T>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut AnyConnection) -> Change<'c, T> + Send + 'static,
    {
        if self.kind == Kind::Postgres {
            let mut transaction = match lock {
                Some(lock) => self.begin_exclusive(lock).await?,
                None => self.writer.begin().await?,
            };
            let value = change(&mut transaction).await?;
            transaction.commit().await?;
            return Ok(value);
        }
        let (caller, receiver) = oneshot::channel();
        if self.together.push(Box::new(Waiting { change: Some(change), outcome: None, caller })) {
            tokio::spawn(write_all(self.clone()));
        }
        receiver.await.unwrap_or(Err(sqlx::Error::WorkerCrashed))
    }
}

/// The task that writes. If a change panics, those who wait are told, and the next one who comes starts another task.
struct Writer<'a>(&'a Together);

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let mut queue = self.0.queue.lock().unwrap_or_else(PoisonError::into_inner);
            queue.writing = false;
            queue.jobs.clear();
        }
    }
}

/// Writes until nobody waits.
async fn write_all(store: Store) {
    let _writer = Writer(&store.together);
    loop {
        let mut jobs = store.together.take();
        if jobs.is_empty() {
            return;
        }
        let committed = write(&store, &mut jobs).await;
        jobs.into_iter().for_each(|job| job.answer(&committed));
    }
}

async fn write(store: &Store, jobs: &mut [Box<dyn Job>]) -> sqlx::Result<()> {
    let mut transaction = store.begin_exclusive("").await?;
    if let [job] = jobs {
        // The transaction is its savepoint. Dropped, it is rolled back.
        return if job.run(&mut transaction).await { transaction.commit().await } else { Ok(()) };
    }
    for job in jobs {
        let mut savepoint = transaction.begin().await?;
        match job.run(&mut savepoint).await {
            true => savepoint.commit().await?,
            false => savepoint.rollback().await?,
        }
    }
    transaction.commit().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::places;

    async fn add(store: &Store, number: i64) -> sqlx::Result<i64> {
        let added = store.change(None, move |connection| {
            Box::pin(async move {
                // The first statement of a change that fails is undone with the second.
                sqlx::query("INSERT INTO t (number) VALUES ($1)").bind(number + 1000).execute(&mut *connection).await?;
                sqlx::query("INSERT INTO t (number) VALUES ($1)").bind(number).execute(&mut *connection).await?;
                Ok(number)
            })
        });
        added.await
    }

    #[tokio::test]
    async fn a_change_that_panics_holds_nobody_up() {
        let [place, _] = places().await;
        let store = place.create().await;
        sqlx::query("CREATE TABLE t (number BIGINT NOT NULL UNIQUE)").execute(&store.pool).await.unwrap();
        let broken = store.change::<i64, _>(None, |_| Box::pin(async { panic!("as a fault of ours would") }));
        assert!(matches!(broken.await, Err(sqlx::Error::WorkerCrashed)));
        let next = tokio::time::timeout(std::time::Duration::from_secs(30), add(&store, 1));
        assert_eq!(next.await.expect("the next change is made").unwrap(), 1);
        store.close().await;
    }

    #[tokio::test]
    async fn changes_of_many_callers_are_made_and_one_that_fails_undoes_itself_alone() {
        for place in places().await {
            let store = place.create().await;
            sqlx::query("CREATE TABLE t (number BIGINT NOT NULL UNIQUE)").execute(&store.pool).await.unwrap();
            add(&store, 7).await.unwrap();
            let tasks: Vec<_> = (0..BATCH as i64 + 44)
                .map(|number| {
                    let store = store.clone();
                    tokio::spawn(async move { add(&store, number).await })
                })
                .collect();
            for (number, task) in tasks.into_iter().enumerate() {
                let outcome = task.await.unwrap();
                match number {
                    7 => assert!(outcome.unwrap_err().as_database_error().unwrap().is_unique_violation()),
                    _ => assert_eq!(outcome.unwrap(), number as i64),
                }
            }
            assert!(add(&store, 7).await.is_err(), "alone, too");
            store.close().await;
            let store = place.open().await;
            let count: i64 = sqlx::query_scalar("SELECT count(*) FROM t").fetch_one(&store.pool).await.unwrap();
            assert_eq!(count, 2 * (BATCH as i64 + 44));
        }
    }

    #[tokio::test]
    async fn a_change_is_made_though_its_caller_went_away() {
        for place in places().await.into_iter().take(1) {
            let store = place.create().await;
            sqlx::query("CREATE TABLE t (number BIGINT NOT NULL UNIQUE)").execute(&store.pool).await.unwrap();
            let impatient = tokio::time::timeout(std::time::Duration::ZERO, add(&store, 1)).await;
            assert!(impatient.is_err());
            add(&store, 2).await.unwrap();
            let count: i64 = sqlx::query_scalar("SELECT count(*) FROM t").fetch_one(&store.pool).await.unwrap();
            assert_eq!(count, 4);
        }
    }
}
