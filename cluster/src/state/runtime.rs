//! The runtime under Raft: tokio. For a simulation its random numbers come from `getrandom`, where those of the library
//! would come from the kernel by a way that a program cannot stand in.

#[cfg(not(feature = "simulation"))]
pub(crate) use openraft::TokioRuntime as Runtime;

#[cfg(feature = "simulation")]
pub(crate) use crate::state::runtime::simulated::Runtime;

#[cfg(feature = "simulation")]
mod simulated {
    use std::time::Duration;

    use openraft::{AsyncRuntime, OptionalSend, TokioInstant, TokioRuntime};
    use rand08::{SeedableRng as _, rngs::StdRng};

    type Tokio = TokioRuntime;

    /// As [`TokioRuntime`], with other random numbers.
    #[derive(Debug, Default, PartialEq, Eq)]
    pub(crate) struct Runtime;

    impl AsyncRuntime for Runtime {
        type JoinError = <Tokio as AsyncRuntime>::JoinError;
        type JoinHandle<T: OptionalSend + 'static> = <Tokio as AsyncRuntime>::JoinHandle<T>;
        type Sleep = <Tokio as AsyncRuntime>::Sleep;
        type Instant = TokioInstant;
        type TimeoutError = <Tokio as AsyncRuntime>::TimeoutError;
        type Timeout<R, T: Future<Output = R> + OptionalSend> = <Tokio as AsyncRuntime>::Timeout<R, T>;
        type ThreadLocalRng = StdRng;
        type OneshotSender<T: OptionalSend> = <Tokio as AsyncRuntime>::OneshotSender<T>;
        type OneshotReceiver<T: OptionalSend> = <Tokio as AsyncRuntime>::OneshotReceiver<T>;
        type OneshotReceiverError = <Tokio as AsyncRuntime>::OneshotReceiverError;

        fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
        where
            T: Future + OptionalSend + 'static,
            T::Output: OptionalSend + 'static,
        {
            Tokio::spawn(future)
        }

        fn sleep(duration: Duration) -> Self::Sleep {
            Tokio::sleep(duration)
        }

        fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
            Tokio::sleep_until(deadline)
        }

        fn timeout<R, F: Future<Output = R> + OptionalSend>(
            duration: Duration,
            future: F,
        ) -> Self::Timeout<R, F> {
            Tokio::timeout(duration, future)
        }

        fn timeout_at<R, F: Future<Output = R> + OptionalSend>(
            deadline: Self::Instant,
            future: F,
        ) -> Self::Timeout<R, F> {
            Tokio::timeout_at(deadline, future)
        }

        fn is_panic(join_error: &Self::JoinError) -> bool {
            Tokio::is_panic(join_error)
        }

        fn thread_rng() -> Self::ThreadLocalRng {
            StdRng::from_seed(crate::fabric::random_bytes())
        }

        fn oneshot<T>() -> (Self::OneshotSender<T>, Self::OneshotReceiver<T>)
        where
            T: OptionalSend,
        {
            Tokio::oneshot()
        }
    }
}
