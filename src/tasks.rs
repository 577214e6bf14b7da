//! What tasks come to, for whoever waits for them.

use tokio::task::JoinError;

/// What a task came to, from what its handle says.
///
/// A task that is cancelled by nobody of ours is one that the end of the runtime has cancelled, and whoever waits for
/// it is about to be dropped, too: this never returns then. A panic of the task goes on in whoever waits.
pub async fn outcome<T>(joined: Result<T, JoinError>) -> T {
    match unless_cancelled(joined).await {
        Ok(outcome) => outcome,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// The same, for whoever goes on after a panic of the task: what it came to, or that panic.
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
    async fn what_the_end_of_a_runtime_cancels_is_waited_for_without_an_end_and_without_a_panic() {
        assert_eq!(outcome(tokio::spawn(async { 7 }).await).await, 7);
        let task = tokio::spawn(std::future::pending::<()>());
        task.abort();
        assert_eq!(outcome(task.await).now_or_never(), None);
        let task = tokio::spawn(std::future::pending::<()>());
        task.abort();
        assert!(unless_cancelled(task.await).now_or_never().is_none());
    }

    #[tokio::test]
    async fn a_panic_of_a_task_is_an_error_for_whoever_goes_on_after_it() {
        let task = tokio::spawn(async { panic!("it is broken") });
        let joined: Result<(), JoinError> = unless_cancelled(task.await).await;
        assert!(joined.is_err_and(|error| error.is_panic()));
    }

    #[tokio::test]
    #[should_panic(expected = "it is broken")]
    async fn a_panic_of_a_task_goes_on_in_whoever_waits() {
        outcome(tokio::spawn(async { panic!("it is broken") }).await).await
    }
}
