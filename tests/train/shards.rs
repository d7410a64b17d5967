//! Shards come back as they were written, and nothing else comes back at all.

use moelab::data::shards::Shard;
use proptest::prelude::*;

fn shard(vocabulary: u32, documents: &[Vec<u32>]) -> Shard {
    let mut shard = Shard::new(vocabulary, [7; 32]);
    documents.iter().for_each(|document| shard.push(document).unwrap());
    shard
}

#[test]
fn refuses_ids_beyond_the_vocabulary() {
    let error = Shard::new(10, [0; 32]).push(&[3, 10]).unwrap_err().to_string();
    assert_eq!(error, "token shard: token id 10, expected below the vocabulary of 10");
}

#[test]
fn ids_take_two_bytes_while_they_fit() {
    let document = vec![vec![1, 2, 3]];
    assert_eq!(shard(65_536, &document).encode().len(), 96 + 4 + 6);
    assert_eq!(shard(65_537, &document).encode().len(), 96 + 4 + 12);
}

#[test]
fn every_flipped_bit_and_every_cut_is_found() {
    let bytes = shard(300, &[vec![1, 299], vec![], vec![5]]).encode();
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(Shard::decode(&flipped).is_err(), "bit {bit}");
    }
    for length in 0..bytes.len() {
        assert!(Shard::decode(&bytes[..length]).is_err(), "cut to {length}");
    }
    assert!(Shard::decode(&[&bytes[..], &[0]].concat()).is_err());
}

#[test]
fn says_what_does_not_hold() {
    let bytes = shard(300, &[vec![1, 299]]).encode();
    let told = |at: usize, value: u8| {
        let mut bytes = bytes.clone();
        bytes[at] = value;
        Shard::decode(&bytes).unwrap_err().to_string()
    };
    assert_eq!(told(0, 0), "token shard: this is not a token shard: it does not start with the magic bytes");
    assert_eq!(told(8, 9), "token shard: version 9, expected 1");
    assert_eq!(told(12, 4), "token shard: 4 bytes per token, expected 2 for a vocabulary of 300");
    assert_eq!(
        told(31, 255),
        "token shard: 8 bytes after the header, expected 36748173471169675268: truncated or appended to"
            .replace("36748173471169675268", &(4u128 + 2 * ((255u128 << 56) + 2)).to_string())
    );
    assert_eq!(told(96, 1), "token shard: the SHA-256 does not match: the bytes have changed since they were written");
}

/// A shard that an honest tool would not write, with a hash that is right.
#[test]
fn a_right_hash_does_not_make_the_content_right() {
    use sha2::{Digest, Sha256};
    let good = shard(300, &[vec![1, 2], vec![3]]).encode();
    let reject = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        let hash = Sha256::new().chain_update(&bytes[..64]).chain_update(&bytes[96..]).finalize();
        bytes[64..96].copy_from_slice(&hash);
        Shard::decode(&bytes).map(|_| ()).unwrap_err().to_string()
    };
    assert_eq!(reject(&|bytes| bytes[96] = 9), "token shard: documents of 10 tokens together, expected 3");
    assert_eq!(reject(&|bytes| bytes[105] = 2), "token shard: token id 513, expected below the vocabulary of 300");
}

proptest! {
    // A failure prints its least input; it leaves no file behind.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read(vocabulary in prop::sample::select(vec![256u32, 65_536, 65_537, 1_000_000]),
                               documents in prop::collection::vec(prop::collection::vec(0u32..256, 0..20), 0..8)) {
        let shard = shard(vocabulary, &documents);
        let back = Shard::decode(&shard.encode()).unwrap();
        prop_assert_eq!(&back, &shard);
        let read: Vec<Vec<u32>> = (0..back.documents()).map(|index| back.document(index).collect()).collect();
        prop_assert_eq!(read, documents);
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(Shard::decode(&bytes).is_err());
    }

    #[test]
    fn random_headers_never_panic(fields in any::<[u32; 6]>(), rest in prop::collection::vec(any::<u8>(), 64..200)) {
        let bytes: Vec<u8> = b"moelab\0T".iter().copied().chain(fields.iter().flat_map(|field| field.to_le_bytes())).chain(rest).collect();
        prop_assert!(Shard::decode(&bytes).is_err());
    }
}
