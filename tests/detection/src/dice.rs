//! Numbers by chance that are the same on every machine and in every build: the whole simulation is one seed.
//!
//! Not for secrets. SplitMix64 (Steele, Lea, Flood 2014): each key gives a stream of its own, so that leaving one fault
//! out of a schedule changes no other.

/// One stream.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// The stream of this key.
    pub fn of(keys: &[u64]) -> Self {
        let mut dice = Self(0x9e37_79b9_7f4a_7c15);
        for key in keys {
            dice.0 ^= key.wrapping_mul(0xd6e8_feb8_6659_fd93);
            dice.0 = dice.draw();
        }
        dice
    }

    /// 64 bits.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 (in it) to 1 (not in it), evenly.
    pub fn unit(&mut self) -> f64 {
        (self.draw() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Evenly between the two.
    pub fn between(&mut self, (low, high): (f64, f64)) -> f64 {
        low + (high - low) * self.unit()
    }

    /// With this probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// Under `below`.
    pub fn pick(&mut self, below: usize) -> usize {
        (self.unit() * below as f64) as usize
    }

    /// Exponential with this mean: the wait for the next event of a Poisson process.
    pub fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.unit()).ln()
    }

    /// Standard normal (Box and Muller).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// Pareto from `least` with `shape`, cut off at `most` (drawn from below it, not piled up on it).
    pub fn pareto(&mut self, least: f64, shape: f64, most: f64) -> f64 {
        let cut = 1.0 - (least / most).powf(shape);
        least / (1.0 - self.unit() * cut).powf(1.0 / shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean(mut draw: impl FnMut(&mut Dice) -> f64) -> f64 {
        let mut dice = Dice::of(&[1]);
        (0..200_000).map(|_| draw(&mut dice)).sum::<f64>() / 200_000.0
    }

    #[test]
    fn the_same_key_is_the_same_stream_and_another_is_not() {
        let draw = |keys: &[u64]| Dice::of(keys).draw();
        assert_eq!(draw(&[1, 2]), draw(&[1, 2]));
        assert_ne!(draw(&[1, 2]), draw(&[2, 1]));
        assert_ne!(draw(&[1]), draw(&[1, 0]));
    }

    #[test]
    fn means_are_right() {
        assert!((mean(Dice::unit) - 0.5).abs() < 0.005);
        assert!((mean(|dice| dice.exponential(3.0)) - 3.0).abs() < 0.05);
        assert!(mean(Dice::normal).abs() < 0.01);
        assert!((mean(|dice| dice.normal().powi(2)) - 1.0).abs() < 0.02);
        let pareto = mean(|dice| dice.pareto(1.0, 3.0, 1000.0));
        assert!((pareto - 1.5).abs() < 0.02, "{pareto}");
    }
}
