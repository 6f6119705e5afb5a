//! Compares the rows of a sale in PostgreSQL with its claims in Redis: one to one, in order, with numbers without gaps.

use std::{
    collections::{HashMap, HashSet},
    str::FromStr,
};

use anyhow::{Context, Error};
use buyers::Claim;

/// A row of a sale.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OrderRow {
    pub(crate) user: String,
    pub(crate) order: String,
    pub(crate) shard: u16,
    /// Number of the entry in the shard's stream, and the place of the order in it.
    pub(crate) entry: (u64, u64),
    pub(crate) position: u64,
    pub(crate) at_ms: u64,
    pub(crate) event: String,
}

/// Returns the query for the rows of a sale.
pub(super) fn query(sale: &str, creation: &str) -> String {
    format!(
        "SELECT user_id, aggregateid, shard, seq, n, position, (extract(epoch FROM at) * 1000)::bigint, id \
         FROM order_events WHERE sale = '{sale}' AND creation = '{creation}' ORDER BY position"
    )
}

impl FromStr for OrderRow {
    type Err = Error;

    /// Parses a line of [`query`].
    fn from_str(line: &str) -> Result<Self, Error> {
        let columns: Vec<&str> = line.split('|').collect();
        let [user, order, shard, seq, n, position, at, event] =
            columns[..].try_into().ok().with_context(|| format!("the row {line:?}"))?;
        Ok(Self {
            user: user.to_owned(),
            order: order.to_owned(),
            shard: shard.parse()?,
            entry: (seq.parse()?, n.parse()?),
            position: position.parse()?,
            at_ms: at.parse()?,
            event: event.to_owned(),
        })
    }
}

/// Returns what is wrong with the rows of a sale, given its claims by user. The rows are in the order of their positions.
pub(crate) fn contradictions(claims: &HashMap<String, Claim>, rows: &[OrderRow]) -> Vec<String> {
    let mut found = Vec::new();
    let mut users = HashSet::new();
    for row in rows {
        let OrderRow { user, order, .. } = row;
        if !users.insert(user) {
            found.push(format!("ledger: {user} has two rows"));
        }
        match claims.get(user) {
            None => found.push(format!("ledger: the row of {user}, order {order}, has no claim")),
            Some(claim) if claim.order != *order || claim.at_ms != row.at_ms => {
                found.push(format!("ledger: the row of {user} is {row:?}, but the claim is {claim:?}"));
            }
            Some(_) => {}
        }
    }
    let missing = claims.iter().filter(|(user, _)| !users.contains(user));
    found.extend(
        missing
            .map(|(user, claim)| format!("ledger: the claim of {user}, order {}, has no row", claim.order)),
    );
    found.extend(wrong_positions(rows));
    found
}

/// Positions count all rows of a sale from 1, and follow the order of each shard's stream.
fn wrong_positions(rows: &[OrderRow]) -> Vec<String> {
    let mut found = Vec::new();
    let mut latest: HashMap<u16, (u64, u64)> = HashMap::new();
    for (row, expected) in rows.iter().zip(1..) {
        if row.position != expected {
            found.push(format!("ledger: row {expected} of the sale has position {}", row.position));
            break;
        }
    }
    for OrderRow { shard, entry, position, .. } in rows {
        if latest.insert(*shard, *entry).is_some_and(|before| before >= *entry) {
            found.push(format!("ledger: position {position} is not in the order of shard {shard}"));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(user: &str, seq: u64, position: u64) -> OrderRow {
        format!("{user}|order-{user}|0|{seq}|0|{position}|7|id").parse().unwrap()
    }

    fn claims(users: &[&str]) -> HashMap<String, Claim> {
        let claim = |user: &&str| ((*user).to_owned(), Claim { order: format!("order-{user}"), at_ms: 7 });
        users.iter().map(claim).collect()
    }

    #[test]
    fn equal_rows_and_claims_are_clean() {
        assert_eq!(contradictions(&claims(&["ann", "bob"]), &[row("bob", 1, 1), row("ann", 2, 2)]), [""; 0]);
    }

    #[test]
    fn missing_extra_and_doubled_rows_are_reported() {
        let found = contradictions(&claims(&["ann", "bob"]), &[row("ann", 1, 1), row("eve", 2, 2)]);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("eve") && found[1].contains("bob"), "{found:?}");
        let found = contradictions(&claims(&["ann"]), &[row("ann", 1, 1), row("ann", 2, 2)]);
        assert_eq!(found, ["ledger: ann has two rows"]);
    }

    #[test]
    fn row_of_another_order_is_reported() {
        let other = OrderRow { order: "other".into(), ..row("ann", 1, 1) };
        let late = OrderRow { at_ms: 8, ..row("bob", 2, 2) };
        assert_eq!(contradictions(&claims(&["ann", "bob"]), &[other, late]).len(), 2);
    }

    #[test]
    fn gaps_and_wrong_order_are_reported() {
        let claims = claims(&["ann", "bob"]);
        assert_eq!(contradictions(&claims, &[row("ann", 1, 1), row("bob", 2, 3)]).len(), 1);
        assert_eq!(contradictions(&claims, &[row("ann", 2, 1), row("bob", 1, 2)]).len(), 1);
    }
}
