//! Limits the batches in flight to a node: additive increase, multiplicative decrease.
//!
//! The rule is AIMD (Chiu and Jain, *Analysis of the Increase and Decrease Algorithms for Congestion Avoidance*,
//! 1989). After as many deliveries as the limit, the limit rises by one; after an overload or a timeout it is halved. The
//! setting `cluster.max_in_flight` is the ceiling.

/// The limit for batches in flight to one node.
#[derive(Clone, Copy, Debug)]
pub struct InFlightLimit {
    ceiling: usize,
    now: usize,
    delivered: usize,
}

impl InFlightLimit {
    /// Starts at the ceiling, which is at least one.
    pub fn new(ceiling: usize) -> InFlightLimit {
        InFlightLimit { ceiling, now: ceiling, delivered: 0 }
    }

    /// The present limit, at least one.
    pub fn get(&self) -> usize {
        self.now
    }

    /// Records a delivery.
    pub fn on_delivered(&mut self) {
        self.delivered += 1;
        if self.delivered >= self.now {
            self.delivered = 0;
            self.now = (self.now + 1).min(self.ceiling);
        }
    }

    /// Records an overload of the node.
    pub fn on_overload(&mut self) {
        self.delivered = 0;
        self.now = (self.now / 2).max(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overload_halves_the_limit_and_deliveries_raise_it_to_the_ceiling_again() {
        let mut limit = InFlightLimit::new(16);
        let down: Vec<_> = (0..6)
            .map(|_| {
                limit.on_overload();
                limit.get()
            })
            .collect();
        assert_eq!(down, [8, 4, 2, 1, 1, 1]);
        let mut deliveries = 0;
        while limit.get() < 16 {
            limit.on_delivered();
            deliveries += 1;
        }
        assert_eq!(deliveries, (1..16).sum::<i32>());
        (0..100).for_each(|_| limit.on_delivered());
        assert_eq!(limit.get(), 16);
    }
}
