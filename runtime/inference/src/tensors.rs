//! Tensors in another process's memory: described by that process, so nothing is believed.
//!
//! Elements are read with `pread` and never by mapping the memory: the client may write while we read, and a mapping
//! would make that a data race. The copy is of inputs only, and small beside what a model does with them.

use crate::engine::{ElementType, Elements, TensorValue};
use belvedere_interfaces::channel::inference::{MAXIMUM_DIMENSIONS, MAXIMUM_TENSOR_BYTES, Tensor, TensorView};
use rustix::fs::SealFlags;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

/// Where tensors begin.
const ALIGNMENT: u64 = 64;

/// A tensor of a call, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// Index among the model's inputs.
    pub input: usize,
    /// Type.
    pub kind: ElementType,
    /// Dimensions.
    pub shape: Vec<u64>,
    /// Number of elements.
    pub count: usize,
    /// Where it begins, in bytes.
    pub offset: u64,
}

/// Checks the descriptions of a call's tensors against the model's inputs and the memory's size. Pure.
pub fn check(views: &[TensorView], inputs: &[Tensor], memory: u64) -> Result<Vec<Checked>, String> {
    if views.len() != inputs.len() {
        let names: Vec<&str> = inputs.iter().map(|input| input.name.as_str()).collect();
        return Err(format!("the model takes {} inputs ({}), the call has {}", inputs.len(), names.join(", "), views.len()));
    }
    let mut checked: Vec<Checked> = Vec::new();
    let mut sum = 0_u64;
    for (position, view) in views.iter().enumerate() {
        let input = if view.name.is_empty() {
            position
        } else {
            inputs.iter().position(|input| input.name == view.name).ok_or_else(|| {
                let names: Vec<&str> = inputs.iter().map(|input| input.name.as_str()).collect();
                format!("the model has no input {:?}; it has {}", short(&view.name), names.join(", "))
            })?
        };
        if checked.iter().any(|other| other.input == input) {
            return Err(format!("input {} is given twice", inputs[input].name));
        }
        let expected = &inputs[input];
        let at = |problem: String| format!("input {}: {problem}", expected.name);
        let kind =
            ElementType::of_name(&view.dtype).ok_or_else(|| at(format!("type {:?} is not known", short(&view.dtype))))?;
        if kind.name() != expected.dtype {
            return Err(at(format!("the model takes {}, the call has {}", expected.dtype, kind.name())));
        }
        if view.shape.len() > MAXIMUM_DIMENSIONS {
            return Err(at(format!("more than {MAXIMUM_DIMENSIONS} dimensions")));
        }
        let fits = view.shape.len() == expected.shape.len()
            && view.shape.iter().zip(&expected.shape).all(|(have, want)| *want < 0 || *have == *want as u64);
        if !fits {
            return Err(at(format!(
                "the model takes the shape {:?} (-1 is any), the call has {:?}",
                expected.shape, view.shape
            )));
        }
        if view.shape.contains(&0) {
            return Err(at("it is empty".into()));
        }
        let count = view
            .shape
            .iter()
            .try_fold(1_u64, |product, dimension| product.checked_mul(*dimension))
            .filter(|count| *count <= MAXIMUM_TENSOR_BYTES)
            .ok_or_else(|| at(format!("more than {MAXIMUM_TENSOR_BYTES} elements")))?;
        let bytes = count * kind.bytes() as u64;
        sum = sum.saturating_add(bytes);
        if sum > MAXIMUM_TENSOR_BYTES {
            return Err(format!("the call's tensors have more than {MAXIMUM_TENSOR_BYTES} bytes"));
        }
        let within = view.offset % ALIGNMENT == 0 && view.offset.checked_add(bytes).is_some_and(|end| end <= memory);
        if !within {
            return Err(at(format!("{bytes} bytes at offset {} do not lie in the memory of {memory} bytes", view.offset)));
        }
        checked.push(Checked { input, kind, shape: view.shape.clone(), count: count as usize, offset: view.offset });
    }
    Ok(checked)
}

fn short(text: &str) -> String {
    text.chars().take(64).collect()
}

/// The size of memory that came beside a packet: a memfd that can neither shrink nor grow.
pub fn memory_size(memory: &OwnedFd) -> Result<u64, String> {
    let seals = rustix::fs::fcntl_get_seals(memory).map_err(|_| "what came beside the call is no memfd".to_owned())?;
    if !seals.contains(SealFlags::SHRINK | SealFlags::GROW) {
        return Err("the memory beside the call is not sealed against shrinking and growing".into());
    }
    let size = rustix::fs::fstat(memory).map_err(|error| format!("look at the memory beside the call: {error}"))?.st_size;
    u64::try_from(size).map_err(|_| "the memory beside the call has no size".into())
}

/// Reads a checked tensor.
pub fn read(memory: &File, checked: &Checked, name: &str) -> Result<TensorValue, String> {
    fn vector<T: bytemuck::Pod>(memory: &File, checked: &Checked) -> Result<Vec<T>, String> {
        let mut elements = vec![T::zeroed(); checked.count];
        memory
            .read_exact_at(bytemuck::cast_slice_mut(&mut elements), checked.offset)
            .map_err(|error| format!("read the call's tensors: {error}"))?;
        Ok(elements)
    }
    let elements = match checked.kind {
        ElementType::Float32 => Elements::Float32(vector(memory, checked)?),
        ElementType::Float64 => Elements::Float64(vector(memory, checked)?),
        ElementType::Int8 => Elements::Int8(vector(memory, checked)?),
        ElementType::Int16 => Elements::Int16(vector(memory, checked)?),
        ElementType::Int32 => Elements::Int32(vector(memory, checked)?),
        ElementType::Int64 => Elements::Int64(vector(memory, checked)?),
        ElementType::Uint8 => Elements::Uint8(vector(memory, checked)?),
        ElementType::Uint16 => Elements::Uint16(vector(memory, checked)?),
        ElementType::Uint32 => Elements::Uint32(vector(memory, checked)?),
        ElementType::Uint64 => Elements::Uint64(vector(memory, checked)?),
        // A byte that is neither 0 nor 1 is no `bool`.
        ElementType::Bool => Elements::Bool(vector::<u8>(memory, checked)?.into_iter().map(|byte| byte != 0).collect()),
    };
    Ok(TensorValue { name: name.to_owned(), shape: checked.shape.clone(), elements })
}

impl Elements {
    /// The type.
    pub fn kind(&self) -> ElementType {
        match self {
            Elements::Float32(_) => ElementType::Float32,
            Elements::Float64(_) => ElementType::Float64,
            Elements::Int8(_) => ElementType::Int8,
            Elements::Int16(_) => ElementType::Int16,
            Elements::Int32(_) => ElementType::Int32,
            Elements::Int64(_) => ElementType::Int64,
            Elements::Uint8(_) => ElementType::Uint8,
            Elements::Uint16(_) => ElementType::Uint16,
            Elements::Uint32(_) => ElementType::Uint32,
            Elements::Uint64(_) => ElementType::Uint64,
            Elements::Bool(_) => ElementType::Bool,
        }
    }

    /// As they lie in memory.
    fn bytes(&self) -> &[u8] {
        match self {
            Elements::Float32(elements) => bytemuck::cast_slice(elements),
            Elements::Float64(elements) => bytemuck::cast_slice(elements),
            Elements::Int8(elements) => bytemuck::cast_slice(elements),
            Elements::Int16(elements) => bytemuck::cast_slice(elements),
            Elements::Int32(elements) => bytemuck::cast_slice(elements),
            Elements::Int64(elements) => bytemuck::cast_slice(elements),
            Elements::Uint8(elements) => elements,
            Elements::Uint16(elements) => bytemuck::cast_slice(elements),
            Elements::Uint32(elements) => bytemuck::cast_slice(elements),
            Elements::Uint64(elements) => bytemuck::cast_slice(elements),
            Elements::Bool(elements) => bytemuck::cast_slice(elements),
        }
    }
}

/// Where results lie in the bytes that are sent, and how many bytes that are.
pub fn describe(results: &[TensorValue]) -> Result<(Vec<TensorView>, u64), String> {
    let mut views = Vec::new();
    let mut end = 0_u64;
    for result in results {
        views.push(TensorView {
            name: result.name.clone(),
            dtype: result.elements.kind().name().to_owned(),
            shape: result.shape.clone(),
            offset: end,
        });
        end = end.saturating_add(result.elements.bytes().len() as u64).next_multiple_of(ALIGNMENT);
        if end > MAXIMUM_TENSOR_BYTES {
            return Err(format!("the model's results have more than {MAXIMUM_TENSOR_BYTES} bytes"));
        }
    }
    Ok((views, end))
}

/// Cuts results, as `views` say that they lie, into packets of `length` bytes, the last one shorter. Large results are cut
/// where they are, without a copy; what is between two of them is filled up with zeros.
pub fn in_packets<E>(
    results: &[TensorValue],
    views: &[TensorView],
    length: usize,
    mut send: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut packet: Vec<u8> = Vec::new();
    for (result, view) in results.iter().zip(views) {
        let mut bytes = result.elements.bytes();
        debug_assert_eq!(view.offset % ALIGNMENT, 0);
        let padding = bytes.len().next_multiple_of(ALIGNMENT as usize) - bytes.len();
        while !bytes.is_empty() {
            if packet.is_empty() && bytes.len() >= length {
                let (now, later) = bytes.split_at(length);
                send(now)?;
                bytes = later;
                continue;
            }
            let (now, later) = bytes.split_at(bytes.len().min(length - packet.len()));
            packet.extend_from_slice(now);
            bytes = later;
            if packet.len() == length {
                send(&packet)?;
                packet.clear();
            }
        }
        // Packets and places are multiples of the alignment, so that this never crosses a packet's end.
        packet.resize(packet.len() + padding, 0);
        if packet.len() == length {
            send(&packet)?;
            packet.clear();
        }
    }
    if packet.is_empty() { Ok(()) } else { send(&packet) }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use rustix::fs::MemfdFlags;

    fn input(name: &str, dtype: &str, shape: &[i64]) -> Tensor {
        Tensor { name: name.into(), dtype: dtype.into(), shape: shape.to_vec() }
    }
    fn view(name: &str, dtype: &str, shape: &[u64], offset: u64) -> TensorView {
        TensorView { name: name.into(), dtype: dtype.into(), shape: shape.to_vec(), offset }
    }

    #[test]
    fn what_a_client_says_is_checked_before_it_is_used() {
        let inputs = [input("x", "float32", &[-1, 3])];
        let good = check(&[view("", "float32", &[2, 3], 64)], &inputs, 88).unwrap();
        assert_eq!(good, [Checked { input: 0, kind: ElementType::Float32, shape: vec![2, 3], count: 6, offset: 64 }]);
        let refuse = |bad: TensorView, memory: u64, words: &str| {
            let error = check(std::slice::from_ref(&bad), &inputs, memory).unwrap_err();
            assert!(error.contains(words), "{error}");
        };
        refuse(view("x", "float32", &[2, 3], 64), 87, "do not lie");
        refuse(view("x", "float32", &[2, 3], 32), 1_000, "do not lie");
        refuse(view("x", "float32", &[2, 3], u64::MAX - 63), 1_000, "do not lie");
        refuse(view("x", "float64", &[2, 3], 0), 1_000, "takes float32");
        refuse(view("x", "complex64", &[2, 3], 0), 1_000, "not known");
        refuse(view("x", "float32", &[3, 2], 0), 1_000, "shape");
        refuse(view("x", "float32", &[6], 0), 1_000, "shape");
        refuse(view("x", "float32", &[0, 3], 0), 1_000, "empty");
        refuse(view("y", "float32", &[2, 3], 0), 1_000, "no input");
        refuse(view("x", "float32", &[u64::MAX, 3], 0), 1_000, "elements");
        refuse(view("x", "float32", &[(MAXIMUM_TENSOR_BYTES / 12) + 1, 3], 0), u64::MAX, "bytes");
        check(&[view("x", "float32", &[MAXIMUM_TENSOR_BYTES / 12, 3], 0)], &inputs, u64::MAX).unwrap();
        assert!(check(&[], &inputs, 1_000).unwrap_err().contains("takes 1 inputs"));
        let two = [input("a", "bool", &[1]), input("b", "bool", &[1])];
        assert!(check(&[view("a", "bool", &[1], 0), view("a", "bool", &[1], 0)], &two, 64).unwrap_err().contains("twice"));
        let deep = [input("x", "uint8", &[-1; 9])];
        assert!(check(&[view("x", "uint8", &[1; 9], 0)], &deep, 64).unwrap_err().contains("dimensions"));
    }

    /// Memory as a client has it.
    pub(crate) fn sealed(bytes: &[u8]) -> OwnedFd {
        let memory = rustix::fs::memfd_create("x", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        let file = File::from(memory);
        file.write_all_at(bytes, 0).unwrap();
        rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW).unwrap();
        file.into()
    }

    #[test]
    fn results_come_back_as_they_were_whatever_the_length_of_packets() {
        let results = [
            TensorValue { name: "a".into(), shape: vec![3], elements: Elements::Float32(vec![1.0, 2.0, 3.5]) },
            TensorValue { name: "b".into(), shape: vec![0], elements: Elements::Int64(vec![]) },
            TensorValue { name: "c".into(), shape: vec![2], elements: Elements::Bool(vec![true, false]) },
            TensorValue { name: "d".into(), shape: vec![500], elements: Elements::Uint16((0..500).collect()) },
            TensorValue { name: "e".into(), shape: vec![64], elements: Elements::Uint8((0..64).collect()) },
        ];
        let (views, bytes) = describe(&results).unwrap();
        assert_eq!(views.iter().map(|view| view.offset).collect::<Vec<_>>(), [0, 64, 64, 128, 1152]);
        for length in [64, 128, 192, 1024, 65_536] {
            let mut sent = Vec::new();
            let mut lengths = Vec::new();
            in_packets(&results, &views, length, |packet| {
                sent.extend_from_slice(packet);
                lengths.push(packet.len());
                Ok::<(), ()>(())
            })
            .unwrap();
            assert_eq!(sent.len() as u64, bytes);
            let (last, full) = lengths.split_last().unwrap();
            assert!(full.iter().all(|have| *have == length) && (1..=length).contains(last), "{lengths:?}");
            let file = File::from(sealed(&sent));
            for at in [0, 2, 3, 4] {
                let inputs = [input(&results[at].name, &views[at].dtype, &[-1])];
                let checked = check(&views[at..=at], &inputs, bytes).unwrap();
                assert_eq!(read(&file, &checked[0], &results[at].name).unwrap(), results[at]);
            }
        }
        assert_eq!(in_packets(&results, &views, 64, |_| Err(7)), Err(7));
    }

    #[test]
    fn only_sealed_memory_is_read() {
        let (pipe, _other) = rustix::pipe::pipe().unwrap();
        assert!(memory_size(&pipe).is_err());
        assert!(memory_size(&tempfile::tempfile().unwrap().into()).is_err());
        let open = rustix::fs::memfd_create("x", MemfdFlags::ALLOW_SEALING).unwrap();
        assert!(memory_size(&open).unwrap_err().contains("not sealed"));
        rustix::fs::ftruncate(&open, 4_096).unwrap();
        rustix::fs::fcntl_add_seals(&open, SealFlags::SHRINK | SealFlags::GROW).unwrap();
        assert_eq!(memory_size(&open), Ok(4_096));
    }
}
