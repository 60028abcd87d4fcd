//! One limit with a bucket for each key: three requests at once, then one each second.
//!
//! ```sh
//! cargo run -p tidegate-limiter --example per_key
//! ```
#![allow(clippy::print_stdout, reason = "an example")]

use std::{thread::sleep, time::Duration};

use tidegate_limiter::{Cost, Error, Keyed, Limit};

fn main() -> Result<(), Error> {
    let calls = Keyed::new(Limit::per_second(1).burst(3))?;
    for round in 1..=6 {
        // Any `Hash` type is a key, borrowed or not.
        for tenant in [("acme", 1_u64), ("globex", 2)] {
            let answer = calls.check_now(&tenant, Cost::ONE);
            let decision = answer.decision();
            match decision.retry_after {
                None => println!("{round}. {tenant:?}: allowed, {} left", decision.remaining),
                Some(wait) => println!("{round}. {tenant:?}: denied, try again in {} ms", wait.as_millis()),
            }
        }
        sleep(Duration::from_millis(300));
    }
    // What a program does now and then, from a thread that serves nobody.
    calls.sweep_now();
    Ok(())
}
