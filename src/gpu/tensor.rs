//! Tensors are `Copy` handles: an id, a shape, an element type. The plan manages their storage.

use std::fmt;

/// Element type of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    /// 32-bit float.
    F32,
    /// 16-bit float.
    F16,
    /// 32-bit unsigned integer.
    U32,
}

impl DType {
    /// Bytes of one element.
    pub fn bytes(self) -> u64 {
        match self {
            DType::F32 | DType::U32 => 4,
            DType::F16 => 2,
        }
    }

    /// WGSL's name.
    pub fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::U32 => "u32",
        }
    }
}

/// Up to four dimensions, row-major.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    dims: [u32; 4],
    rank: u8,
}

impl Shape {
    /// The dimensions.
    pub fn as_slice(&self) -> &[u32] {
        &self.dims[..self.rank as usize]
    }

    /// Number of elements.
    ///
    /// # Panics
    /// If it exceeds u32: kernels index in u32.
    #[allow(clippy::len_without_is_empty)] // No tensor is empty.
    pub fn len(&self) -> u32 {
        let len: u64 = self.as_slice().iter().map(|&d| u64::from(d)).product();
        u32::try_from(len).unwrap_or_else(|_| panic!("shape {self:?} has {len} elements, kernels index at most 2^32 - 1"))
    }

    /// The last dimension, the length of a row.
    pub fn last(&self) -> u32 {
        self.as_slice().last().copied().unwrap_or(1)
    }

    /// [rows, width] with leading dimensions collapsed.
    ///
    /// # Panics
    /// If there is no dimension, naming `what`.
    pub fn matrix(&self, what: &str) -> [u32; 2] {
        assert!(self.rank > 0, "{what}: expected [rows, width], found {self:?}");
        [self.len() / self.last().max(1), self.last()]
    }

    /// Exactly `R` dimensions.
    ///
    /// # Panics
    /// If the rank differs, naming `what`.
    pub fn dims<const R: usize>(&self, what: &str) -> [u32; R] {
        self.as_slice().try_into().unwrap_or_else(|_| panic!("{what}: expected {R} dimensions, found {self:?}"))
    }
}

impl<const R: usize> From<[u32; R]> for Shape {
    fn from(dims: [u32; R]) -> Self {
        Shape::from(dims.as_slice())
    }
}

impl From<&[u32]> for Shape {
    fn from(dims: &[u32]) -> Self {
        assert!(dims.len() <= 4 && dims.iter().all(|&d| d > 0), "expected 1 to 4 dimensions above 0, found {dims:?}");
        let mut padded = [1; 4];
        padded[..dims.len()].copy_from_slice(dims);
        Shape { dims: padded, rank: dims.len() as u8 }
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{:?}", self.as_slice())
    }
}

/// Index of a tensor in its program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TensorId(pub u32);

/// A handle to a tensor of a program under construction, with the shape it is viewed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// The tensor's id.
    pub id: TensorId,
    /// The view's shape.
    pub shape: Shape,
    /// Element type.
    pub dtype: DType,
    /// Whether gradients stop at this handle; the storage is the same.
    pub is_detached: bool,
}

impl Tensor {
    /// The same elements in another shape.
    ///
    /// # Panics
    /// If the number of elements differs.
    pub fn reshape(self, shape: impl Into<Shape>) -> Tensor {
        let shape = shape.into();
        assert_eq!(self.shape.len(), shape.len(), "reshape {:?} to {shape:?}", self.shape);
        Tensor { shape, ..self }
    }

    /// Bytes of its elements.
    pub fn bytes(&self) -> u64 {
        u64::from(self.shape.len()) * self.dtype.bytes()
    }
}
