//! A number of places: whoever wants one takes it, and gives it back by dropping it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Places, of which there are only so many. Clones are the same places.
#[derive(Clone, Debug)]
pub struct Places {
    taken: Arc<AtomicUsize>,
    max: usize,
}

/// One of them.
#[derive(Debug)]
pub struct Place(Arc<AtomicUsize>);

impl Places {
    /// So many places, all free.
    pub fn of(max: usize) -> Self {
        Self { taken: Arc::default(), max }
    }

    /// How many there are.
    pub fn max(&self) -> usize {
        self.max
    }

    /// How many are taken now.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// Takes one; `None` where none is free.
    pub fn take(&self) -> Option<Place> {
        let taken = self.taken.fetch_add(1, Ordering::Relaxed);
        // From here on it is given back, whatever happens.
        let place = Place(Arc::clone(&self.taken));
        (taken < self.max).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_again_once_it_is_given_back() {
        let places = Places::of(1);
        let place = places.take();
        assert!(place.is_some() && places.take().is_none());
        assert_eq!(places.taken(), 1, "who was sent away took none");
        drop(place);
        assert!(places.take().is_some());
    }
}
