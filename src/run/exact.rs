//! Floats in JSON without loss.
//!
//! A finite float is written as the shortest decimal that reads back to the same bits (serde_json's `float_roundtrip`
//! makes the reading exact too). JSON cannot represent other values, and a diverged run must still be recordable, so they
//! are written as the strings `"nan"`, `"inf"` and `"-inf"`; the payload of a NaN is lost.
//!
//! Use as `#[serde(with = "exact")]` on an `f64`, `exact::option` on an `Option<f64>` (absent is `null`), `exact::list` on a
//! `Vec<f32>`, `exact::table` on a `Vec<Vec<f32>>`.

use serde::de::{Deserializer, Error, Unexpected, Visitor};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Writes a finite `f64` as a number, the others as a string.
pub fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    if value.is_finite() {
        return serializer.serialize_f64(*value);
    }
    serializer.serialize_str(match value {
        v if v.is_nan() => "nan",
        v if *v > 0.0 => "inf",
        _ => "-inf",
    })
}

/// Reads the output of [`serialize`].
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    deserializer.deserialize_any(FloatVisitor)
}

struct FloatVisitor;

impl Visitor<'_> for FloatVisitor {
    type Value = f64;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a number, \"nan\", \"inf\" or \"-inf\"")
    }

    fn visit_f64<E>(self, value: f64) -> Result<f64, E> {
        Ok(value)
    }

    fn visit_u64<E>(self, value: u64) -> Result<f64, E> {
        Ok(value as f64)
    }

    fn visit_i64<E>(self, value: i64) -> Result<f64, E> {
        Ok(value as f64)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<f64, E> {
        match text {
            "nan" => Ok(f64::NAN),
            "inf" => Ok(f64::INFINITY),
            "-inf" => Ok(f64::NEG_INFINITY),
            other => Err(E::invalid_value(Unexpected::Str(other), &self)),
        }
    }
}

/// The same for optional values; `None` is `null`.
pub mod option {
    use super::*;

    struct Exact(f64);

    impl<'de> Deserialize<'de> for Exact {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            super::deserialize(deserializer).map(Exact)
        }
    }

    /// Writes a value as [`super::serialize`] does.
    pub fn serialize<S: Serializer>(value: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => super::serialize(value, serializer),
            None => serializer.serialize_none(),
        }
    }

    /// Reads the output of [`serialize`].
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
        Ok(Option::<Exact>::deserialize(deserializer)?.map(|exact| exact.0))
    }
}

/// The same for a list of `f32`.
pub mod list {
    use super::*;

    pub(super) struct Exact(pub(super) f32);

    impl Serialize for Exact {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            match self.0.is_finite() {
                true => serializer.serialize_f32(self.0),
                false => super::serialize(&f64::from(self.0), serializer),
            }
        }
    }

    impl<'de> Deserialize<'de> for Exact {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            Ok(Exact(super::deserialize(deserializer)? as f32))
        }
    }

    /// Writes every element as [`super::serialize`] does, with the digits of an `f32`.
    pub fn serialize<S: Serializer>(values: &[f32], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(values.iter().map(|&value| Exact(value)))
    }

    /// Reads the output of [`serialize`].
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f32>, D::Error> {
        Ok(Vec::<Exact>::deserialize(deserializer)?.into_iter().map(|exact| exact.0).collect())
    }
}

/// The same for rows of `f32`.
pub mod table {
    use super::list::Exact;
    use super::*;

    /// Writes every element as [`super::list::serialize`] does.
    pub fn serialize<S: Serializer>(rows: &[Vec<f32>], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(rows.iter().map(|row| row.iter().map(|&value| Exact(value)).collect::<Vec<_>>()))
    }

    /// Reads the output of [`serialize`].
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Vec<f32>>, D::Error> {
        let rows = Vec::<Vec<Exact>>::deserialize(deserializer)?;
        Ok(rows.into_iter().map(|row| row.into_iter().map(|exact| exact.0).collect()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize, Deserialize)]
    struct Holder {
        #[serde(with = "super")]
        one: f64,
        #[serde(with = "super::list")]
        many: Vec<f32>,
        #[serde(with = "super::table")]
        rows: Vec<Vec<f32>>,
    }

    fn round_trip(one: f64, many: Vec<f32>) -> Holder {
        let text = serde_json::to_string(&Holder { one, rows: vec![many.clone()], many }).expect("floats serialise");
        serde_json::from_str(&text).expect("the output can be read back")
    }

    /// Numbers whose decimals are hard to read exactly, and 20,000 bit patterns from a fixed sequence.
    #[test]
    fn every_bit_pattern_survives_a_round_trip() {
        let mut bits = vec![0, 1, (-0.0f64).to_bits(), f64::MAX.to_bits(), f64::MIN_POSITIVE.to_bits()];
        bits.extend([f64::INFINITY, f64::NEG_INFINITY, 7.205_759_403_792_794e16, 9007199254740993.0].map(f64::to_bits));
        let mut x = 0x9e37_79b9_7f4a_7c15_u64;
        bits.extend((0..20_000).map(|_| {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            x ^ (x >> 29)
        }));
        for bits in bits {
            let (one, many) = (f64::from_bits(bits), f32::from_bits((bits >> 32) as u32));
            let back = round_trip(one, vec![many]);
            assert!(back.one.to_bits() == bits || one.is_nan() && back.one.is_nan(), "f64 {bits:016x}");
            assert!(back.many[0].to_bits() == many.to_bits() || many.is_nan() && back.many[0].is_nan(), "f32 {many}");
            assert_eq!(back.rows[0][0].to_bits(), back.many[0].to_bits());
        }
    }

    #[test]
    fn other_strings_are_rejected() {
        assert!(serde_json::from_str::<Holder>(r#"{"one":1,"many":[],"rows":[]}"#).is_ok());
        assert!(serde_json::from_str::<Holder>(r#"{"one":"NaN","many":[],"rows":[]}"#).is_err());
        assert!(serde_json::from_str::<Holder>(r#"{"one":null,"many":[],"rows":[]}"#).is_err());
    }
}
