//! Random and evenly spread numbers, so that many clients or streams do not all act at the same moment.

use std::hash::{BuildHasher, RandomState};

/// Returns a random number.
///
/// Each `RandomState` takes its keys from the operating system's random numbers.
pub(crate) fn random() -> u64 {
    RandomState::new().hash_one(0)
}

/// Returns a random number from 0 to 1.
pub(crate) fn random_share() -> f64 {
    share(random())
}

/// Returns a number from 0 to 1 for the element with this number.
///
/// Consecutive numbers spread evenly from any start, because their results are multiples of the golden ratio.
pub(crate) fn even_share(start: u64, number: u64) -> f64 {
    share(start.wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}

fn share(number: u64) -> f64 {
    number as f64 / u64::MAX as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn even_shares_leave_no_gap_of_three_times_the_mean() {
        let mut shares: Vec<f64> = (0..100).map(|number| even_share(7, number)).collect();
        shares.sort_by(f64::total_cmp);
        assert!(shares.windows(2).all(|pair| pair[1] - pair[0] < 0.03), "{shares:?}");
        assert!(shares[0] < 0.03 && shares[99] > 0.97);
    }

    #[test]
    fn random_numbers_differ() {
        assert_ne!(random(), random());
    }
}
