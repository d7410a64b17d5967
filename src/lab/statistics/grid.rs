//! Whether the values of a metric lie on a grid, as when a loss was computed in bfloat16 or printed with few digits.

/// The coarsest grid 1/N, N a whole number, that holds all values to single precision; `None` if there is none, or if so many values
/// could lie on so fine a grid by accident.
///
/// The accident: a value lies within the tolerance e of a grid 1/N with probability 2 e N. Grids are tried from the coarsest
/// until that, for all distinct values together and summed over the grids tried, exceeds one in a million.
pub fn grid(values: &[f64]) -> Option<f64> {
    const ACCIDENT: f64 = 1e-6;
    let mut distinct: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
    distinct.sort_by(f64::total_cmp);
    distinct.dedup();
    let largest = distinct.iter().fold(0.0, |most: f64, value| most.max(value.abs()));
    if distinct.len() < 2 || largest == 0.0 {
        return None;
    }
    let tolerance = largest * f64::from(f32::EPSILON) / 2.0;
    let mut accident = 0.0;
    for steps in 1..u32::MAX {
        let steps = f64::from(steps);
        accident += (2.0 * tolerance * steps).powi(distinct.len() as i32);
        if accident > ACCIDENT {
            return None;
        }
        if distinct.iter().all(|value| (value * steps - (value * steps).round()).abs() <= tolerance * steps) {
            return Some(1.0 / steps);
        }
    }
    None
}
