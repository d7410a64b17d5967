//! Reading tensors from an untrusted safetensors file.
//!
//! The official crate checks offsets and shapes, but accepts headers of 100 MB, adds sizes unchecked and lets NaN through. So
//! the header is bounded first (8 MB, 20,000 tensors, data that fills the file), then names, shapes and dtypes must match the model
//! exactly, then every value must be finite. The errors are [`CheckpointError`]s.

use crate::run::checkpoint::{CheckpointError, NamedTensor};
use crate::run::quote::cut;
use safetensors::tensor::{Dtype, Metadata, TensorInfo, View};
use std::borrow::Cow;

const HEADER_LIMIT_BYTES: usize = 8 << 20;
const TENSOR_LIMIT: usize = 20_000;
const PROBLEMS_SHOWN: usize = 8;

/// The values as the bytes of a file; borrowed on little-endian machines.
pub(crate) fn little_endian(data: &[f32]) -> Cow<'_, [u8]> {
    match cfg!(target_endian = "little") {
        true => Cow::Borrowed(bytemuck::cast_slice(data)),
        false => Cow::Owned(data.iter().flat_map(|value| value.to_le_bytes()).collect()),
    }
}

impl View for &NamedTensor {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        little_endian(&self.data)
    }

    fn data_len(&self) -> usize {
        size_of_val(self.data.as_slice())
    }
}

/// Bytes of a tensor of f32 with this shape.
pub(crate) fn data_bytes(shape: &[usize]) -> usize {
    shape.iter().product::<usize>() * size_of::<f32>()
}

/// The header of a file of these tensors (name, shape), all f32 and sorted by name, as written by the official crate.
pub(crate) fn header_of(name: &str, tensors: &[(String, Vec<usize>)]) -> Result<Vec<u8>, CheckpointError> {
    let mut end = 0;
    let info = |(tensor, shape): &(String, Vec<usize>)| {
        let start = end;
        end += data_bytes(shape);
        (tensor.clone(), TensorInfo { dtype: Dtype::F32, shape: shape.clone(), data_offsets: (start, end) })
    };
    let metadata = Metadata::new(None, tensors.iter().map(info).collect()).map_err(|error| header(name, error))?;
    let mut json = serde_json::to_vec(&metadata).map_err(|error| header(name, error))?;
    json.resize(json.len().next_multiple_of(8), b' ');
    Ok([&(json.len() as u64).to_le_bytes()[..], &json].concat())
}

/// A part of a tensor in a file.
pub(crate) struct Part {
    /// Name of the tensor.
    pub tensor: String,
    /// Offset of the part in the tensor.
    pub offset: u64,
    /// Offset of the part in the file.
    pub at: u64,
    /// Its length.
    pub bytes: usize,
}

/// The parts, of at most `part_bytes` bytes, of which the tensors in the file `name` consist, tensor by tensor in the order of their
/// names. The file has `length` bytes, begins with `head` and must hold exactly the `expected` tensors.
pub(crate) fn parts(
    name: &str,
    head: &[u8],
    length: u64,
    expected: &[(String, Vec<usize>)],
    part_bytes: usize,
) -> Result<Vec<Part>, CheckpointError> {
    let metadata = read_header(name, head, length)?;
    let problems = differences(&metadata, expected);
    if !problems.is_empty() {
        return Err(CheckpointError::Tensors { file: name.to_string(), problems });
    }
    let data = length - metadata.data_len() as u64;
    let mut tensors: Vec<&String> = expected.iter().map(|(tensor, _)| tensor).collect();
    tensors.sort();
    let mut parts = Vec::new();
    for tensor in tensors {
        let (start, end) = metadata.info(tensor).map_or((0, 0), |info| info.data_offsets);
        for at in (start..end).step_by(part_bytes) {
            let (offset, bytes) = ((at - start) as u64, part_bytes.min(end - at));
            parts.push(Part { tensor: tensor.clone(), offset, at: data + at as u64, bytes });
        }
    }
    Ok(parts)
}

/// Maximum bytes at the start of a file that its header may use.
pub const HEAD_BYTES: usize = 8 + HEADER_LIMIT_BYTES;

/// The header of a file of `length` bytes, bounded before the official reader sees it, which accepts 100 MB and adds sizes unchecked. Of
/// the file's start `head` holds [`HEAD_BYTES`], or all there are.
pub(crate) fn read_header(name: &str, head: &[u8], file_length: u64) -> Result<Metadata, CheckpointError> {
    let too_large = |what, found, limit| CheckpointError::TooLarge { file: name.to_string(), what, found, limit };
    let Some((length, rest)) = head.split_first_chunk::<8>() else {
        return Err(header(name, "it has fewer than 8 bytes"));
    };
    let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
    if length > HEADER_LIMIT_BYTES {
        return Err(too_large("its header in bytes", length, HEADER_LIMIT_BYTES));
    }
    let json = rest.get(..length).ok_or_else(|| header(name, "its header is truncated"))?;
    let metadata: Metadata = serde_json::from_slice(json).map_err(|error| header(name, error))?;
    let count = metadata.offset_keys().len();
    if count > TENSOR_LIMIT {
        return Err(too_large("its number of tensors", count, TENSOR_LIMIT));
    }
    if metadata.data_len() as u64 != file_length.saturating_sub(8 + length as u64) {
        return Err(header(name, "its tensors do not fill the file"));
    }
    Ok(metadata)
}

/// The differences between the stored and the expected tensors, of which the first few are listed.
fn differences(stored: &Metadata, expected: &[(String, Vec<usize>)]) -> Vec<String> {
    let mut found = stored.tensors();
    let mut problems = Vec::new();
    for (name, shape) in expected {
        match found.remove(name) {
            None => problems.push(format!("`{name}` {shape:?} is missing")),
            Some(info) if info.dtype != Dtype::F32 || info.shape != *shape => {
                let (dtype, found) = (info.dtype, &info.shape);
                problems.push(format!("`{name}` is {dtype:?} {found:?}, expected F32 {shape:?}"));
            }
            Some(_) => {}
        }
    }
    let mut surplus: Vec<String> = found.into_keys().collect();
    surplus.sort();
    problems.extend(surplus.into_iter().map(|name| format!("`{name}` is not part of it")));
    if problems.len() > PROBLEMS_SHOWN {
        let more = problems.len() - PROBLEMS_SHOWN;
        problems.truncate(PROBLEMS_SHOWN);
        problems.push(format!("and {more} more"));
    }
    problems
}

fn header(file: &str, problem: impl ToString) -> CheckpointError {
    // The reader's message may quote the file.
    CheckpointError::Header { file: file.to_string(), problem: cut(&problem.to_string(), 200) }
}
