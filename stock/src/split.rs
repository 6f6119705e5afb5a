//! Splits a total by shares, without losing a unit.

/// Splits `total` in proportion to `shares`, largest remainder first. The parts sum to `total` exactly.
///
/// This is Hamilton's method: each part is its quota rounded down or up. Among equal remainders the earlier share
/// wins, so every coordinator computes the same split.
///
/// # Panics
/// Panics when no share is above zero.
pub(crate) fn split(total: u64, shares: &[u64]) -> Vec<u64> {
    let whole: u128 = shares.iter().map(|&share| u128::from(share)).sum();
    assert!(whole > 0, "a total is split over at least one share above zero");
    let quota = |share: u64| u128::from(total) * u128::from(share);

    let mut parts: Vec<u64> = shares.iter().map(|&share| (quota(share) / whole) as u64).collect();
    let left = (total - parts.iter().sum::<u64>()) as usize;
    let mut by_remainder: Vec<usize> = (0..shares.len()).collect();
    by_remainder.sort_by_key(|&part| std::cmp::Reverse(quota(shares[part]) % whole));
    for part in by_remainder.into_iter().take(left) {
        parts[part] += 1;
    }
    parts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn largest_remainder_gets_the_odd_unit() {
        assert_eq!(split(10, &[1, 1, 1]), [4, 3, 3]);
        assert_eq!(split(7, &[50, 30, 20]), [4, 2, 1]);
        assert_eq!(split(2, &[1, 1, 1, 1]), [1, 1, 0, 0]);
        assert_eq!(split(0, &[3, 4]), [0, 0]);
        assert_eq!(split(5, &[0, 9]), [0, 5]);
    }

    proptest! {
        #[test]
        fn split_is_exact_and_rounds_each_quota(
            total in 0..=u64::MAX / 2,
            shares in prop::collection::vec(0..=u64::MAX, 1..100),
        ) {
            let whole: u128 = shares.iter().map(|&share| u128::from(share)).sum();
            prop_assume!(whole > 0);
            let parts = split(total, &shares);
            prop_assert_eq!(parts.iter().sum::<u64>(), total);
            for (&part, &share) in parts.iter().zip(&shares) {
                let floor = (u128::from(total) * u128::from(share) / whole) as u64;
                prop_assert!(part == floor || part == floor + 1, "{} of quota {}", part, floor);
            }
        }
    }
}
