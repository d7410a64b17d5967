//! Counter-based random numbers, the same on host and GPU (`shaders/lib/random.wgsl`).
//!
//! Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011). All random numbers are
//! a function of (seed, step, stream, element), so there is no generator state to save: a resumed run gets the same numbers.

/// Ten rounds of Philox4x32.
pub fn philox4x32(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let wide = |a: u32, b: u32| {
        let product = u64::from(a) * u64::from(b);
        ((product >> 32) as u32, product as u32)
    };
    let [mut c0, mut c1, mut c2, mut c3] = counter;
    let [mut k0, mut k1] = key;
    for _ in 0..10 {
        let (high0, low0) = wide(0xd251_1f53, c0);
        let (high1, low1) = wide(0xcd9e_8d57, c2);
        (c0, c1, c2, c3) = (high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0);
        k0 = k0.wrapping_add(0x9e37_79b9);
        k1 = k1.wrapping_add(0xbb67_ae85);
    }
    [c0, c1, c2, c3]
}

/// A random sequence: the numbers of `stream` at `step` for `seed`, indexed by element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    /// The run's seed.
    pub seed: u64,
    /// The step of the run (a micro-step, an epoch); 0 if it does not depend on one.
    pub step: u32,
    /// Identifies the consumer.
    pub stream: u32,
}

impl Stream {
    /// 128 random bits of one element.
    pub fn bits(self, element: u32) -> [u32; 4] {
        philox4x32([element, self.step, self.stream, 0], [self.seed as u32, (self.seed >> 32) as u32])
    }

    /// Uniform in [0, 1) in steps of 2^-24.
    pub fn uniform(self, element: u32) -> f32 {
        unit(self.bits(element)[0])
    }

    /// Standard normal by Box-Muller, cosine branch.
    pub fn normal(self, element: u32) -> f32 {
        let bits = self.bits(element);
        let radius = (-2.0 * (1.0 - f64::from(unit(bits[0]))).ln()).sqrt();
        (radius * (std::f64::consts::TAU * f64::from(unit(bits[1]))).cos()) as f32
    }
}

fn unit(bits: u32) -> f32 {
    (bits >> 8) as f32 * (1.0 / 16_777_216.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_matches_the_published_vectors() {
        assert_eq!(philox4x32([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        let ones = philox4x32([u32::MAX; 4], [u32::MAX; 2]);
        assert_eq!(ones, [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
    }

    #[test]
    fn normals_have_unit_moments() {
        let stream = Stream { seed: 7, step: 0, stream: 3 };
        let n = 20_000;
        let (sum, squares) = (0..n).map(|i| f64::from(stream.normal(i))).fold((0.0, 0.0), |(s, q), v| (s + v, q + v * v));
        assert!((sum / f64::from(n)).abs() < 0.03);
        assert!((squares / f64::from(n) - 1.0).abs() < 0.05);
    }
}
