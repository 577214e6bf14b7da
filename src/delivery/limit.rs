//! How many batches may be on their way to a node: additive increase, multiplicative decrease.
//!
//! The rule is AIMD (Chiu and Jain, *Analysis of the Increase and Decrease Algorithms for Congestion Avoidance*,
//! 1989): one more after as many deliveries as the limit is high, half as many after an answer that says
//! "too much" or none in time. The setting `cluster.max_in_flight` is the ceiling.

/// The present limit of one node.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    ceiling: usize,
    now: usize,
    delivered: usize,
}

impl Limit {
    /// Starts at the ceiling, which is at least one.
    pub fn new(ceiling: usize) -> Limit {
        Limit { ceiling, now: ceiling, delivered: 0 }
    }

    /// Batches that may be on their way at present, at least one.
    pub fn get(&self) -> usize {
        self.now
    }

    /// A batch was delivered.
    pub fn on_delivered(&mut self) {
        self.delivered += 1;
        if self.delivered >= self.now {
            self.delivered = 0;
            self.now = (self.now + 1).min(self.ceiling);
        }
    }

    /// The node was overloaded.
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
        let mut limit = Limit::new(16);
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
