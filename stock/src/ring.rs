//! The ring of a sale: maps each user to a home shard, and orders the donor shards that the home may steal from.
//!
//! It is a consistent hash ring over the shard numbers, frozen with the sale. Nodes with different rings would claim
//! one user in two shards, so the ring's fingerprint goes with every call. Users and shards are hashed as texts by
//! xxHash64, and a golden test pins the result. Homes and donors are those of the crate `consistent_hash_ring`, whose time to
//! build a ring grows with the square of the points: 0.2 s for 192 shards.

use std::hash::{Hash, Hasher};

use xxhash_rust::xxh64::Xxh64;

use crate::ids::{ShardId, UserId};

/// Points per shard on the ring. With 128 points, the smallest and the largest of 8 shards own 0.81 and 1.11 times the
/// mean share of the ring; of 16 shards 0.82 and 1.13; of 64 shards 0.85 and 1.21. The stock is split by the same
/// shares, so shards still run empty at about the same time.
pub const VNODES_DEFAULT: u16 = 128;

/// xxHash64 with a fixed byte order for numbers. The ring hashes each point's hash again for the next point. In the
/// machine's byte order, homes would differ between machines.
#[derive(Default)]
struct PortableHasher(Xxh64);

impl Hasher for PortableHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
    }

    fn write_u64(&mut self, number: u64) {
        self.0.write(&number.to_le_bytes());
    }

    fn finish(&self) -> u64 {
        self.0.finish()
    }
}

fn hash(key: impl Hash) -> u64 {
    let mut hasher = PortableHasher::default();
    key.hash(&mut hasher);
    hasher.finish()
}

/// The ring of one sale: its points by hash. A position belongs to the next point, or to the first one after the last.
/// Building it takes milliseconds, so it is built once per sale and never on the path of a request.
pub struct Ring {
    points: Vec<(u64, ShardId)>,
    shards: u16,
}

impl Ring {
    /// Builds a ring of `shards` shards with `vnodes` points each.
    ///
    /// # Panics
    /// Panics when either is zero: there would be no home.
    pub fn new(shards: u16, vnodes: u16) -> Self {
        assert!(shards > 0 && vnodes > 0, "a ring has at least one shard with one point");
        let points_of = |shard: ShardId| {
            let first = hash(shard.to_string().as_str());
            let hashes = std::iter::successors(Some(first), |&before| Some(hash(before)));
            hashes.take(usize::from(vnodes)).map(move |hash| (hash, shard))
        };
        let mut points: Vec<_> = (0..shards).map(ShardId::new).flat_map(points_of).collect();
        points.sort_by_key(|(hash, _)| *hash);
        points.dedup_by(|later, earlier| {
            let are_equal = later.0 == earlier.0;
            if are_equal {
                earlier.1 = later.1;
            }
            are_equal
        });
        Self { points, shards }
    }

    /// Returns the home shard of this user, the only shard that may claim the user.
    pub fn home(&self, user: &UserId) -> ShardId {
        self.points[self.point_at(hash(user.as_str()))].1
    }

    /// Returns the other shards in the order in which the user's home asks them for tokens. Users of one home get
    /// different orders, so steals spread over the donors.
    pub fn donors(&self, user: &UserId) -> impl Iterator<Item = ShardId> + '_ {
        let mut seen = vec![false; usize::from(self.shards)];
        let mut position = hash(user.as_str());
        let next = move |_| {
            let mut point = self.point_at(position);
            position = hash(position);
            while std::mem::replace(&mut seen[self.points[point].1.index()], true) {
                point = (point + 1) % self.points.len();
            }
            self.points[point].1
        };
        // The first one is the home.
        (0..self.shards).map(next).skip(1)
    }

    /// Returns each shard's share of the ring: how many of its 2^64 positions lead to the shard.
    pub fn shares(&self) -> Vec<u64> {
        let mut shares = vec![0; usize::from(self.shards)];
        let mut before = 0;
        for &(hash, shard) in &self.points {
            shares[shard.index()] += hash - before;
            before = hash;
        }
        shares[self.points[0].1.index()] += u64::MAX - before;
        shares
    }

    /// Returns the index of the point that a position belongs to.
    fn point_at(&self, position: u64) -> usize {
        self.points.partition_point(|(hash, _)| *hash < position) % self.points.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::UserIdKind;

    fn user(id: &str) -> UserId {
        UserId::parse(id, UserIdKind::Opaque).unwrap()
    }

    #[test]
    fn homes_are_stable_across_machines_and_releases() {
        let ring = Ring::new(12, VNODES_DEFAULT);
        let homes =
            ["ann", "bob", "carol", "user-000001", "user-000002", "éva", "🦀", "{flash}", "a@b.example"]
                .map(|id| ring.home(&user(id)).index());
        assert_eq!(homes, [7, 7, 4, 6, 2, 7, 3, 2, 8]);
    }

    #[test]
    fn donors_are_all_other_shards_once() {
        let ring = Ring::new(8, VNODES_DEFAULT);
        for id in ["ann", "bob", "carol"] {
            let mut donors: Vec<_> = ring.donors(&user(id)).collect();
            assert!(!donors.contains(&ring.home(&user(id))));
            donors.sort_unstable();
            donors.dedup();
            assert_eq!(donors.len(), 7);
        }
        assert_eq!(Ring::new(1, VNODES_DEFAULT).donors(&user("ann")).count(), 0);
    }

    /// Hashes a shard as the text of its number, as the ring does.
    #[derive(Clone, Copy, PartialEq, Eq)]
    struct Point(ShardId);

    impl Hash for Point {
        fn hash<H: Hasher>(&self, state: &mut H) {
            self.0.to_string().as_str().hash(state);
        }
    }

    #[test]
    fn homes_and_donors_are_those_of_earlier_releases() {
        for shards in [1, 2, 3, 12, 64] {
            let points = (0..shards).map(|shard| Point(ShardId::new(shard)));
            let hasher = std::hash::BuildHasherDefault::<PortableHasher>::default();
            let builder = consistent_hash_ring::RingBuilder::new(hasher).vnodes(VNODES_DEFAULT.into());
            let (earlier, ring) = (builder.nodes_iter(points).build(), Ring::new(shards, VNODES_DEFAULT));
            for user in (0..500).map(|n| user(&format!("user-{n}"))) {
                let order: Vec<ShardId> = earlier.replicas(user.as_str()).map(|point| point.0).collect();
                assert_eq!(ring.home(&user), order[0], "{user:?}");
                assert!(ring.donors(&user).eq(order[1..].iter().copied()), "{user:?}");
            }
        }
    }

    /// Checks the balance documented at [`VNODES_DEFAULT`], and that users are spread accordingly.
    #[test]
    fn shares_are_balanced_and_users_follow_them() {
        for (shards, documented) in [(8, "0.81 1.11"), (16, "0.82 1.13"), (64, "0.85 1.21")] {
            let ring = Ring::new(shards, VNODES_DEFAULT);
            let mean = u64::MAX as f64 / f64::from(shards);
            let shares: Vec<f64> = ring.shares().iter().map(|&share| share as f64 / mean).collect();
            let (least, most) = shares.iter().fold((f64::MAX, 0.0_f64), |(l, m), &s| (l.min(s), m.max(s)));
            assert_eq!(format!("{least:.2} {most:.2}"), documented, "{shards} shards");

            let users = 2000 * u64::from(shards);
            let mut homes = vec![0.0; usize::from(shards)];
            (0..users).for_each(|n| homes[ring.home(&user(&format!("user-{n:06}"))).index()] += 1.0);
            for (home, share) in homes.iter().zip(&shares) {
                let expected = share * 2000.0;
                // Allows five standard deviations of a count with this mean.
                assert!((home - expected).abs() < 5.0 * expected.sqrt(), "{home} users for {expected:.0}");
            }
        }
    }
}
