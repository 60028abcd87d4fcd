//! Rules in one process: which requests are limited, by what, and who has denied.
//!
//! ```sh
//! cargo run -p tidegate-limiter --example in_process
//! ```
#![allow(clippy::print_stdout, reason = "an example")]

use tidegate_limiter::{Algorithm, Cost, Error, Limit, Limiter, NewRule};

fn main() -> Result<(), Error> {
    // From settings, as rule files write it; a text that is no limit says what to write.
    let per_user: Limit = "5/1s burst 20".parse()?;
    let limiter = Limiter::builder()
        .rule(NewRule::new("per-user", per_user).key("user").unlimited_when("user", ["root"]))
        .rule(
            NewRule::new("logins", Limit::per_minute(2).with_algorithm(Algorithm::SlidingLog))
                .when("path", ["/login"])
                .key("ip"),
        )
        .build()?;

    for (user, path) in [("ada", "/"), ("ada", "/login"), ("ada", "/login"), ("ada", "/login"), ("root", "/")]
    {
        let request = [("user", user), ("path", path), ("ip", "203.0.113.7")];
        let verdict = limiter.check_now(&request, Cost::ONE);
        let word = if verdict.allowed { "allowed" } else { "denied" };
        match verdict.binding() {
            None => println!("{user} {path}: {word}, nothing limits it"),
            Some(binding) => {
                let (rule, decision) = (binding.rule.name(), binding.decision);
                println!("{user} {path}: {word}, {} left of {rule}", decision.remaining);
            }
        }
    }
    Ok(())
}
