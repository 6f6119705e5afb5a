//! `place`: a client network has a place for each unit that its buyers may have.

use std::net::IpAddr;

use redis::cmd;
use rediscluster::Call as _;
use stock::ids::{UserId, UserIdKind};
use stock::places::{NetworkPlaces, Place, PlaceChange};

use crate::fixture::TestSale;

struct Fixture {
    sale: TestSale,
}

impl Fixture {
    async fn new() -> Self {
        Self { sale: TestSale::selling(0).await }
    }

    /// Changes the place of a user at a limit of two units for each network.
    async fn change(&self, change: PlaceChange, address: &str, user: &str) -> bool {
        let places = NetworkPlaces::of(&self.sale.sale.config, address.parse().unwrap(), 2);
        let user = UserId::parse(user, UserIdKind::Opaque).unwrap();
        self.sale.cluster.poll(Place { places: &places, user: &user, change }).await.unwrap()
    }

    async fn take(&self, address: &str, user: &str) -> bool {
        self.change(PlaceChange::Take, address, user).await
    }

    async fn give_back(&self, address: &str, user: &str) -> bool {
        self.change(PlaceChange::GiveBack, address, user).await
    }
}

#[tokio::test]
async fn places_are_taken_until_none_are_left() {
    let redis = Fixture::new().await;
    assert!(redis.take("192.0.2.1", "ann").await && redis.take("192.0.2.1", "bob").await);
    assert!(!redis.take("192.0.2.1", "eve").await, "the network is full");
    assert!(redis.take("192.0.2.1", "ann").await, "a user needs one place only");
    assert!(redis.take("192.0.2.2", "eve").await, "another network has its own");
    assert!(redis.take("::ffff:192.0.2.2", "joe").await && !redis.take("192.0.2.2", "max").await);
    assert!(Fixture::new().await.take("192.0.2.1", "eve").await, "another sale has its own");
}

#[tokio::test]
async fn place_is_free_when_all_attempts_gave_it_back() {
    let redis = Fixture::new().await;
    assert!(redis.take("192.0.2.1", "ann").await && redis.take("192.0.2.1", "bob").await);
    assert!(redis.take("192.0.2.1", "bob").await, "a second attempt of bob");

    assert!(redis.give_back("192.0.2.1", "bob").await);
    assert!(!redis.take("192.0.2.1", "eve").await, "the other attempt may still buy");
    assert!(redis.give_back("192.0.2.1", "bob").await);
    assert!(redis.take("192.0.2.1", "eve").await);
    assert!(!redis.give_back("192.0.2.1", "bob").await, "bob has no place to give back");
    assert!(!redis.take("192.0.2.1", "max").await, "ann and eve have the places");
}

#[tokio::test]
async fn wider_ipv6_networks_have_a_multiple_of_the_places() {
    let redis = Fixture::new().await;
    let mut taken = [0; 3];
    for host in 0..2_000_u32 {
        // Each user has a /64 of their own: first all of one /56, then the others of the /48.
        let address = format!("2001:db8:1:{host:x}::1");
        let is_taken = redis.take(&address, &format!("user-{host}")).await;
        taken[if host < 256 { 0 } else { 1 }] += u32::from(is_taken);
    }
    for user in 0..3 {
        taken[2] += u32::from(redis.take("2001:db8:2::1", &format!("neighbour-{user}")).await);
    }
    assert_eq!(taken, [8, 24, 2], "a /56 has 4 times the places of a /64, a /48 has 16 times");
}

#[tokio::test]
async fn refused_user_leaves_no_trace_in_the_narrower_networks() {
    let redis = Fixture::new().await;
    for host in 0..4 {
        for user in 0..2 {
            assert!(redis.take(&format!("2001:db8:1:{host:x}::1"), &format!("user-{host}-{user}")).await);
        }
    }
    assert!(!redis.take("2001:db8:1:9::1", "eve").await, "the /56 is full");
    assert!(redis.give_back("2001:db8:1:0::1", "user-0-0").await);
    assert!(redis.take("2001:db8:1:9::1", "joe").await);
    assert!(redis.give_back("2001:db8:1:1::1", "user-1-0").await);
    assert!(redis.take("2001:db8:1:9::1", "max").await, "eve took no place of the /64");
}

#[tokio::test]
async fn places_expire_after_the_sale_and_show_no_address() {
    let redis = Fixture::new().await;
    assert!(redis.take("2001:db8:1:2::1", "ann").await);

    let config = &redis.sale.sale.config;
    let places = NetworkPlaces::of(config, "2001:db8:1:2::1".parse::<IpAddr>().unwrap(), 2);
    let user = UserId::parse("ann", UserIdKind::Opaque).unwrap();
    let call = Place { places: &places, user: &user, change: PlaceChange::Take };
    let packed = String::from_utf8(call.command().get_packed_command()).unwrap();
    let keys: Vec<&str> = packed.lines().filter(|part| part.starts_with("fs:{networks.")).collect();

    assert_eq!(keys.len(), 3);
    for key in keys {
        assert!(!key.contains("2001") && !key.contains("db8:"), "{key}");
        let expires_at: i64 = redis.sale.query_slot(call.slot(), cmd("PEXPIRETIME").arg(key)).await;
        assert_eq!(expires_at, config.window.ends_at as i64 + 7 * 24 * 3_600_000);
    }
}
