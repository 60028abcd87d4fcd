//! A gRPC service, the health service of tonic, whose callers may ask five times a minute together.
//!
//! ```sh
//! cargo run -p tidegate-tower --example tonic                           # limits by itself
//! cargo run -p tidegate-tower --example tonic -- http://127.0.0.1:7800  # asks a node
//! grpcurl -plaintext 127.0.0.1:3001 grpc.health.v1.Health/Check         # RESOURCE_EXHAUSTED at the sixth
//! ```

use std::error::Error;

use tidegate_limiter::{Limit, Limiter, NewRule};
use tidegate_tower::{OnFailure, Tidegate};
use tonic::transport::Server;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let nodes: Vec<String> = std::env::args().skip(1).collect();
    let builder = if nodes.is_empty() {
        let rule = NewRule::new("health", Limit::per_minute(5)).when("path", ["/grpc.health.v1.Health/*"]);
        Tidegate::local(Limiter::builder().rule(rule).build()?)
    } else {
        Tidegate::nodes(nodes)
    };
    let limited = builder.on_failure(OnFailure::Deny).build()?;

    let (_reporter, health) = tonic_health::server::health_reporter();
    Server::builder().layer(limited).add_service(health).serve("127.0.0.1:3001".parse()?).await?;
    Ok(())
}
