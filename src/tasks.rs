//! The results of tasks, for the code that awaits them.

use tokio::task::JoinError;

/// Returns the result of a task, from the result of its handle.
///
/// Only the end of the runtime cancels these tasks, and it is about to drop the waiter as well: this never returns then.
/// A panic of the task continues in the waiter.
pub async fn outcome<T>(joined: Result<T, JoinError>) -> T {
    match unless_cancelled(joined).await {
        Ok(outcome) => outcome,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Like [`outcome`], but returns a panic of the task as an error.
///
/// # Errors
///
/// The task panicked.
pub async fn unless_cancelled<T>(joined: Result<T, JoinError>) -> Result<T, JoinError> {
    match joined {
        Err(error) if error.is_cancelled() => std::future::pending().await,
        joined => joined,
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn a_task_that_the_end_of_the_runtime_cancelled_never_has_an_outcome() {
        assert_eq!(outcome(tokio::spawn(async { 7 }).await).await, 7);
        let task = tokio::spawn(std::future::pending::<()>());
        task.abort();
        assert_eq!(outcome(task.await).now_or_never(), None);
        let task = tokio::spawn(std::future::pending::<()>());
        task.abort();
        assert!(unless_cancelled(task.await).now_or_never().is_none());
    }

    #[tokio::test]
    async fn unless_cancelled_returns_a_panic_of_the_task_as_an_error() {
        let task = tokio::spawn(async { panic!("it is broken") });
        let joined: Result<(), JoinError> = unless_cancelled(task.await).await;
        assert!(joined.is_err_and(|error| error.is_panic()));
    }

    #[tokio::test]
    #[should_panic(expected = "it is broken")]
    async fn a_panic_of_a_task_continues_in_its_waiter() {
        outcome(tokio::spawn(async { panic!("it is broken") }).await).await
    }
}
