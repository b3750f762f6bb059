//! JSON text, read strictly (RFC 8259) from its bytes, which are known to be UTF-8.

/// Objects and lists inside each other, the event itself included.
pub const DEPTH_LIMIT: u32 = 128;

/// Where and why a text is no JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken {
    pub at: usize,
    pub why: &'static str,
}

/// A place in a text. Methods leave it behind what they read.
#[derive(Clone, Copy)]
pub struct Cursor<'a> {
    pub bytes: &'a [u8],
    pub at: usize,
}

/// A number as it is written.
pub struct Number<'a> {
    pub text: &'a [u8],
    pub negative: bool,
    /// All digits as one integer, without the point. Meaningless when `overflows`.
    pub mantissa: u64,
    /// More than 19 digits.
    pub overflows: bool,
    /// Digits behind the point.
    pub fraction_digits: usize,
    /// What is written behind `e`, held within the limits of the type.
    pub exponent: i32,
    /// Neither point nor exponent.
    pub is_integer: bool,
}

/// A text between its quotes, as it is written.
pub struct Text<'a> {
    pub raw: &'a [u8],
    pub has_escapes: bool,
}

impl<'a> Cursor<'a> {
    pub fn new(bytes: &'a [u8]) -> Cursor<'a> {
        Cursor { bytes, at: 0 }
    }

    pub fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    pub fn broken(&self, why: &'static str) -> Broken {
        Broken { at: self.at, why }
    }

    /// The next byte that is no white space; it is not taken.
    #[inline(always)]
    pub fn skip_space(&mut self) -> Option<u8> {
        loop {
            match self.peek() {
                Some(b' ' | b'\n' | b'\r' | b'\t') => self.at += 1,
                other => return other,
            }
        }
    }

    /// Takes exactly these bytes, if they come next.
    #[inline(always)]
    pub fn take(&mut self, expected: &[u8]) -> bool {
        let found = self.bytes.get(self.at..).is_some_and(|rest| rest.starts_with(expected));
        if found {
            self.at += expected.len();
        }
        found
    }

    /// `true`, `false` or `null`, whole.
    pub fn literal(&mut self, literal: &'static [u8]) -> Result<(), Broken> {
        if self.take(literal) { Ok(()) } else { Err(self.broken("expected true, false, null or another value")) }
    }

    /// A text; the cursor stands on its opening quote.
    #[inline]
    pub fn text(&mut self) -> Result<Text<'a>, Broken> {
        let start = self.at + 1;
        let mut at = start;
        let mut has_escapes = false;
        loop {
            at = end_of_plain(self.bytes, at);
            match self.bytes.get(at) {
                Some(b'"') => {
                    self.at = at + 1;
                    return Ok(Text { raw: self.bytes.get(start..at).unwrap_or_default(), has_escapes });
                }
                Some(b'\\') => {
                    has_escapes = true;
                    at = self.escape_end(at)?;
                }
                Some(_) => return Err(Broken { at, why: "a control character in a text; write it as an escape" }),
                None => return Err(Broken { at, why: "a text without its closing quote" }),
            }
        }
    }

    /// Checks the form of the escape whose backslash is at `at`.
    fn escape_end(&self, at: usize) -> Result<usize, Broken> {
        match self.bytes.get(at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(at + 2),
            Some(b'u') if four_hex_digits(self.bytes, at + 2).is_some() => Ok(at + 6),
            _ => Err(Broken { at, why: "no escape of JSON" }),
        }
    }

    /// A number; the cursor stands on its first byte, a digit or `-`.
    #[inline]
    pub fn number(&mut self) -> Result<Number<'a>, Broken> {
        let start = self.at;
        let negative = self.peek() == Some(b'-');
        self.at += usize::from(negative);
        let mut mantissa = 0u64;
        let first_digit = self.at;
        self.digits(&mut mantissa)?;
        let mut digits = self.at - first_digit;
        if digits > 1 && self.bytes.get(first_digit) == Some(&b'0') {
            return Err(Broken { at: first_digit, why: "a number that begins with 0" });
        }
        let mut fraction_digits = 0;
        let mut is_integer = true;
        if self.peek() == Some(b'.') {
            self.at += 1;
            let first = self.at;
            self.digits(&mut mantissa)?;
            fraction_digits = self.at - first;
            digits += fraction_digits;
            is_integer = false;
        }
        let mut exponent = 0i32;
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            is_integer = false;
            let minus = self.peek() == Some(b'-');
            self.at += usize::from(minus || self.peek() == Some(b'+'));
            let first = self.at;
            self.digits(&mut 0)?;
            let written = self.bytes.get(first..self.at).unwrap_or_default();
            let size =
                written.iter().fold(0i32, |sum, digit| sum.saturating_mul(10).saturating_add(i32::from(digit - b'0')));
            exponent = if minus { -size } else { size };
        }
        let text = self.bytes.get(start..self.at).unwrap_or_default();
        Ok(Number { text, negative, mantissa, overflows: digits > 19, fraction_digits, exponent, is_integer })
    }

    #[inline(always)]
    fn digits(&mut self, value: &mut u64) -> Result<(), Broken> {
        let first = self.at;
        while let Some(digit @ b'0'..=b'9') = self.peek() {
            *value = value.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
            self.at += 1;
        }
        if self.at == first { Err(self.broken("a number without a digit where one must be")) } else { Ok(()) }
    }

    /// Checks a whole value and gives its exact bytes. `depth` objects and lists are open around it.
    pub fn skip_value(&mut self, depth: u32) -> Result<&'a [u8], Broken> {
        self.skip_space();
        let start = self.at;
        // One bit an open bracket, the innermost lowest: 1 = object. As many as DEPTH_LIMIT.
        let mut open: u128 = 0;
        let mut inside = 0u32;
        loop {
            // A value begins here.
            match self.skip_space() {
                Some(bracket @ (b'{' | b'[')) => {
                    if depth + inside >= DEPTH_LIMIT {
                        return Err(self.broken("more than 128 objects and lists inside each other"));
                    }
                    self.at += 1;
                    let object = bracket == b'{';
                    let closing = if object { b'}' } else { b']' };
                    if self.skip_space() == Some(closing) {
                        self.at += 1;
                    } else {
                        open = open << 1 | u128::from(object);
                        inside += 1;
                        if object {
                            self.skip_key()?;
                        }
                        continue;
                    }
                }
                Some(b'"') => {
                    self.text()?;
                }
                Some(b'-' | b'0'..=b'9') => {
                    self.number()?;
                }
                Some(b't') => self.literal(b"true")?,
                Some(b'f') => self.literal(b"false")?,
                Some(b'n') => self.literal(b"null")?,
                Some(_) => return Err(self.broken("expected a value")),
                None => return Err(self.broken("the text ends where a value must be")),
            }
            // A value has ended: close what ends with it.
            loop {
                if inside == 0 {
                    return Ok(self.bytes.get(start..self.at).unwrap_or_default());
                }
                let object = open & 1 == 1;
                match self.skip_space() {
                    Some(b',') => {
                        self.at += 1;
                        if object {
                            self.skip_key()?;
                        }
                        break;
                    }
                    Some(b'}') if object => {}
                    Some(b']') if !object => {}
                    _ => return Err(self.broken("expected a comma or the closing bracket")),
                }
                self.at += 1;
                open >>= 1;
                inside -= 1;
            }
        }
    }

    fn skip_key(&mut self) -> Result<(), Broken> {
        self.key()?;
        self.colon()
    }

    /// A key of an object.
    pub fn key(&mut self) -> Result<Text<'a>, Broken> {
        if self.skip_space() == Some(b'"') { self.text() } else { Err(self.broken("expected a key in quotes")) }
    }

    #[inline(always)]
    pub fn colon(&mut self) -> Result<(), Broken> {
        if self.skip_space() != Some(b':') {
            return Err(self.broken("expected a colon after the key"));
        }
        self.at += 1;
        Ok(())
    }
}

/// Appends what a text means; `None` when an escape is half a surrogate pair, and `out` is as before.
pub fn unescape(raw: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let before = out.len();
    let mut at = 0;
    while let Some(backslash) = raw.get(at..).and_then(|rest| memchr::memchr(b'\\', rest)) {
        out.extend_from_slice(raw.get(at..at + backslash).unwrap_or_default());
        at += backslash;
        let plain = match raw.get(at + 1) {
            Some(b'b') => 8,
            Some(b'f') => 12,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'u') => {
                let Some((character, length)) = escaped_character(raw, at) else {
                    out.truncate(before);
                    return None;
                };
                out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                at += length;
                continue;
            }
            Some(other) => *other,
            None => break,
        };
        out.push(plain);
        at += 2;
    }
    out.extend_from_slice(raw.get(at..).unwrap_or_default());
    Some(())
}

/// The character of a `\u` escape, or of two that form a pair, and the bytes it takes.
fn escaped_character(raw: &[u8], at: usize) -> Option<(char, usize)> {
    let first = four_hex_digits(raw, at + 2)?;
    if let Some(character) = char::from_u32(first) {
        return Some((character, 6));
    }
    let second = if raw.get(at + 6..at + 8) == Some(b"\\u") { four_hex_digits(raw, at + 8)? } else { return None };
    if !(0xd800..0xdc00).contains(&first) || !(0xdc00..0xe000).contains(&second) {
        return None;
    }
    char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00)).map(|character| (character, 12))
}

fn four_hex_digits(bytes: &[u8], at: usize) -> Option<u32> {
    let digits = bytes.get(at..at + 4)?;
    digits.iter().try_fold(0, |value, digit| Some(value * 16 + char::from(*digit).to_digit(16)?))
}

/// Where a quote, a backslash, a control character or the end stands, from `at` on. Eight bytes a step: the tests set
/// the top bit of a byte that passes, and of others only above it, so the lowest set bit is exact.
#[inline(always)]
fn end_of_plain(bytes: &[u8], mut at: usize) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const TOPS: u64 = 0x8080_8080_8080_8080;
    let is_zero = |word: u64| word.wrapping_sub(ONES) & !word & TOPS;
    while let Some(chunk) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let word = u64::from_le_bytes(*chunk);
        let control = word.wrapping_sub(ONES * 0x20) & !word & TOPS;
        let found = is_zero(word ^ (ONES * u64::from(b'"'))) | is_zero(word ^ (ONES * u64::from(b'\\'))) | control;
        if found != 0 {
            return at + (found.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    while bytes.get(at).is_some_and(|byte| !matches!(byte, b'"' | b'\\' | 0..0x20)) {
        at += 1;
    }
    at
}
