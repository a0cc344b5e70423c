//! Taking bytes apart: fields with a name, a value, and what is wrong with it. Which ones there are is told by `layout`.

use bytes::Bytes;
use serde::{Serialize, Serializer};

use crate::place;

/// Some bytes that belong together, and what they mean.
#[derive(Debug, Serialize)]
pub(crate) struct Field {
    /// Where they begin in the file.
    pub(crate) offset: u64,
    /// Where they begin in what is looked at.
    pub(crate) at: usize,
    #[serde(serialize_with = "in_hexadecimal")]
    pub(crate) bytes: Bytes,
    pub(crate) name: String,
    /// `None` if they are the user's, or should be zeros.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) value: Option<Value>,
    /// What is not as it should be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) wrong: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Value {
    Number(u64),
    Text(String),
}

/// The fields so far, and the bytes that they are taken from.
pub(crate) struct Fields {
    pub(crate) bytes: Bytes,
    /// Where they begin in the file.
    offset: u64,
    at: usize,
    pub(crate) all: Vec<Field>,
}

/// Each `take` takes a field if all its bytes are there, and returns them; else nothing.
impl Fields {
    pub(crate) fn of(bytes: &Bytes, offset: u64) -> Self {
        Self { bytes: bytes.clone(), offset, at: 0, all: Vec::new() }
    }

    /// A field with a value.
    pub(crate) fn take(
        &mut self,
        name: &str,
        length: usize,
        value: impl FnOnce(&[u8]) -> Value,
    ) -> Option<Bytes> {
        let bytes = self.take_bytes(name, length)?;
        self.all.last_mut()?.value = Some(value(&bytes));
        Some(bytes)
    }

    /// A field without.
    pub(crate) fn take_bytes(&mut self, name: &str, length: usize) -> Option<Bytes> {
        let end = self.at.checked_add(length).filter(|&end| end <= self.bytes.len())?;
        let (at, bytes) = (self.at, self.bytes.slice(self.at..end));
        let (offset, name) = (self.offset + at as u64, name.to_owned());
        self.at = end;
        self.all.push(Field { offset, at, bytes: bytes.clone(), name, value: None, wrong: None });
        Some(bytes)
    }

    pub(crate) fn take_text(
        &mut self,
        name: &str,
        length: usize,
        text: impl FnOnce(&[u8]) -> String,
    ) -> Option<Bytes> {
        self.take(name, length, |bytes| Value::Text(text(bytes)))
    }

    pub(crate) fn take_crc(&mut self, name: &str) {
        self.take(name, 4, |bytes| match little_endian(bytes) {
            Value::Number(crc) => Value::Text(checksum(crc)),
            text => text,
        });
    }

    pub(crate) fn take_u32(&mut self, name: &str) -> Option<u32> {
        let bytes = self.take(name, 4, little_endian)?;
        bytes.first_chunk().copied().map(u32::from_le_bytes)
    }

    pub(crate) fn take_u64(&mut self, name: &str) -> Option<u64> {
        let bytes = self.take(name, 8, little_endian)?;
        bytes.first_chunk().copied().map(u64::from_le_bytes)
    }

    /// At most so many bytes without a meaning, if there are any.
    pub(crate) fn take_unused(&mut self, name: &str, length_max: usize) {
        let length = length_max.min(self.left());
        if length > 0 {
            self.take_bytes(name, length);
        }
    }

    /// The same of bytes that should be zero.
    pub(crate) fn take_zeros(&mut self, name: &str, length_max: usize) {
        let before = self.all.len();
        self.take_unused(name, length_max);
        if self.all.len() > before
            && self.all.last().is_some_and(|field| field.bytes.iter().any(|&byte| byte != 0))
        {
            self.mark("not all are zero");
        }
    }

    /// What is left, which is nothing of what is all there.
    pub(crate) fn take_rest(&mut self, name: &str) {
        let left = self.left();
        if left > 0 {
            self.take_bytes(name, left);
        }
    }

    /// How many bytes are in no field yet.
    pub(crate) fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    pub(crate) fn check_crc(&mut self, name: &str, should: Option<u32>, source: &str) {
        let field = self.all.iter_mut().find(|field| field.name == name);
        if let (Some(field), Some(should)) = (field, should)
            && field.bytes[..] != should.to_le_bytes()
        {
            field.wrong = Some(format!("{source} {}", checksum(should.into())));
        }
    }

    /// Marks what is not as it was.
    pub(crate) fn compare(&mut self, were: &Self) {
        for (field, was) in self.all.iter_mut().zip(&were.all) {
            if field.bytes != was.bytes
                && let Some(value) = &was.value
            {
                field.wrong = Some(format!("it was {} before one bit flipped", value.text()));
            }
        }
    }

    pub(crate) fn mark(&mut self, wrong: &str) {
        if let Some(field) = self.all.last_mut() {
            field.wrong = Some(wrong.to_owned());
        }
    }
}

impl Value {
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text.clone(),
        }
    }
}

/// At most 8 bytes.
pub(crate) fn little_endian(bytes: &[u8]) -> Value {
    let number = bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte));
    Value::Number(number)
}

fn checksum(crc: u64) -> String {
    format!("{crc:#010x}")
}

fn in_hexadecimal<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&place::hex(bytes))
}
