//! Load on a running sale, with Goose: buyers who look at the sale and buy.
//!
//! `flashsale-loadtest --help` lists Goose's options; a sale of `cargo xtask up` is loaded with
//! `flashsale-loadtest --host http://127.0.0.1:8080 --users 100 --run-time 10s --no-telnet`.

use goose::goose::{GooseMethod, GooseRequest};
use goose::prelude::*;
use serde_json::json;

/// What a purchase may be answered: bought, bought before, or sold out.
const PURCHASE_ANSWERS: [u16; 2] = [200, 409];

#[tokio::main]
async fn main() -> Result<(), GooseError> {
    let rush = scenario!("rush")
        .register_transaction(transaction!(look).set_name("look"))
        .register_transaction(transaction!(buy).set_name("buy"));
    GooseAttack::initialize()?.register_scenario(rush).execute().await?;
    Ok(())
}

async fn look(buyer: &mut GooseUser) -> TransactionResult {
    buyer.get_named("/api/sale/status", "status").await?;
    Ok(())
}

/// Another buyer each time. Goose counts every 4xx as a failure, which "sold out" is not.
async fn buy(buyer: &mut GooseUser) -> TransactionResult {
    let path = "/api/sale/purchase";
    let body = json!({ "userId": format!("goose-{:016x}", rand::random::<u64>()) });
    let builder = buyer.get_request_builder(&GooseMethod::Post, path)?.json(&body);
    let request = GooseRequest::builder().method(GooseMethod::Post).path(path).name("purchase");
    let mut answer = buyer.request(request.set_request_builder(builder).build()).await?;
    match &answer.response {
        Ok(response) if PURCHASE_ANSWERS.contains(&response.status().as_u16()) => {
            buyer.set_success(&mut answer.request)
        }
        _ => Ok(()),
    }
}
