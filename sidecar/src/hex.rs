//! Bytes as lowercase hex digits, the form of every hash the farm shows or compares.

pub fn hex(bytes: &[u8]) -> String {
    let digit = |half: u8| char::from_digit(half.into(), 16).unwrap_or_default();
    let halves = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    halves.map(digit).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn each_byte_is_two_digits() {
        assert_eq!(super::hex(&[0, 9, 0xaf, 0xff]), "0009afff");
    }
}
