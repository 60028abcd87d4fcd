//! An axum service whose clients may ask five times a minute each.
//!
//! ```sh
//! cargo run -p tidegate-tower --example axum                            # limits by itself
//! cargo run --release -- dev                                            # or: three nodes, in another terminal
//! cargo run -p tidegate-tower --example axum -- http://127.0.0.1:7800 http://127.0.0.1:7810
//! curl -si http://127.0.0.1:3000/                                       # again and again, until 429
//! ```

use std::{error::Error, net::SocketAddr};

use axum::{Extension, Router, extract::ConnectInfo, routing::get};
use tidegate_limiter::{Limit, Limiter, NewRule};
use tidegate_tower::{Answer, Tidegate};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let nodes: Vec<String> = std::env::args().skip(1).collect();
    let builder = if nodes.is_empty() {
        let rule = NewRule::new("per-client", Limit::per_minute(5)).key("ip");
        Tidegate::local(Limiter::builder().rule(rule).build()?)
    } else {
        Tidegate::nodes(nodes)
    };
    let limited = builder
        .attribute("ip", |request| {
            Some(request.extensions.get::<ConnectInfo<SocketAddr>>()?.ip().to_string())
        })
        .build()?;

    let app = Router::new().route("/", get(hello)).layer(limited);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>()).await?;
    Ok(())
}

/// A handler may look at what was decided.
async fn hello(answer: Option<Extension<Answer>>) -> String {
    match answer.and_then(|Extension(answer)| answer.remaining) {
        Some(remaining) => format!("hello, {remaining} left\n"),
        None => "hello\n".to_owned(),
    }
}
