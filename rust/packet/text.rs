//! Texts, topic names and topic filters (sections 1.5.3 and 4.7).

use super::{Malformed, Result};

/// Checks a text, which may be empty.
///
/// # Errors
/// [`Malformed::Utf8`] if it is not UTF-8 or has U+0000 in it, [`Malformed::TooLong`] over
/// 65,535 bytes.
pub fn check_text(text: &[u8]) -> Result<()> {
    check(text, true)
}

/// Checks a topic name, as in PUBLISH and in a will (section 4.7).
///
/// # Errors
/// [`Malformed::Topic`] if it is empty or has a wildcard in it; see also [`check_text`].
pub fn check_topic(topic: &[u8]) -> Result<()> {
    if topic.is_empty() {
        return Err(Malformed::Topic); // [MQTT-4.7.3-1]
    }
    check(topic, false)
}

/// Checks a topic filter, as in SUBSCRIBE and UNSUBSCRIBE (section 4.7).
///
/// # Errors
/// [`Malformed::Topic`] if it is empty or a wildcard is not a level of its own, or `#` not the
/// last; see also [`check_text`].
pub fn check_filter(filter: &[u8]) -> Result<()> {
    if filter.is_empty() {
        return Err(Malformed::Topic); // [MQTT-4.7.3-1]
    }
    check(filter, true)?;
    let mut before = b'/';
    for &byte in filter {
        let allowed = match (before, byte) {
            (b'#', _) => false,                 // [MQTT-4.7.1-2]
            (b'+', _) => byte == b'/',          // [MQTT-4.7.1-3]
            (_, b'+' | b'#') => before == b'/', // [MQTT-4.7.1-2] [MQTT-4.7.1-3]
            _ => true,
        };
        if !allowed {
            return Err(Malformed::Topic);
        }
        before = byte;
    }
    Ok(())
}

/// As many bytes as a register holds.
const WORD: usize = size_of::<usize>();

/// A word with 1 in each byte.
const ONES: usize = usize::MAX / 0xFF;

/// Whether each byte is ASCII and comes after `+`, the last one that may be refused.
fn is_plain(word: &[u8; WORD]) -> bool {
    let word = usize::from_ne_bytes(*word);
    // A byte that is too small borrows, which sets the top bit of the lowest one that does.
    (word | word.wrapping_sub(ONES * 0x2C)) & (ONES * 0x80) == 0
}

/// Whether there is nothing to check in a text, which is so for most: a word at a time, the last
/// of which may overlap the one before. Only where words are long: elsewhere small code counts.
fn is_all_plain(text: &[u8]) -> bool {
    let Some(last) = text.last_chunk() else {
        return false;
    };
    let mut text = text;
    while let Some((word, rest)) = text.split_first_chunk() {
        if !is_plain(word) {
            return false;
        }
        text = rest;
    }
    is_plain(last)
}

/// One pass over the text. `core::str::from_utf8` would be a second one, and 0.6 KB of flash.
fn check(text: &[u8], wildcards: bool) -> Result<()> {
    if text.len() > 0xFFFF {
        return Err(Malformed::TooLong); // [MQTT-4.7.3-3]
    }
    if cfg!(target_pointer_width = "64") && is_all_plain(text) {
        return Ok(());
    }
    let mut text = text;
    while let Some((&byte, rest)) = text.split_first() {
        text = match byte {
            b'+' | b'#' if !wildcards => return Err(Malformed::Topic), // [MQTT-4.7.1-1]
            0x01..=0x7F => rest,
            // [MQTT-1.5.3-1]; U+0000 does not begin such a character: [MQTT-1.5.3-2] [MQTT-4.7.3-2]
            _ => skip_character(text).ok_or(Malformed::Utf8)?,
        };
    }
    Ok(())
}

/// What follows the character of several bytes that `text` begins with.
fn skip_character(text: &[u8]) -> Option<&[u8]> {
    let length = text.first()?.leading_ones() as usize;
    let (character, rest) = text.split_at_checked(length)?;
    let (&first, following) = character.split_first()?;
    let mut code = u32::from(first) & (0x7F >> length);
    for &byte in following {
        if byte & 0xC0 != 0x80 {
            return None;
        }
        code = code << 6 | u32::from(byte & 0x3F);
    }
    // Not longer than need be, a surrogate, or past U+10FFFF.
    let valid = match length {
        2 => code >= 0x80,
        3 => code >= 0x800 && code >> 11 != 0xD800 >> 11,
        4 => (0x1_0000..0x11_0000).contains(&code),
        _ => false,
    };
    valid.then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes at which well-formed UTF-8 changes, and some between.
    const BYTES: [u8; 30] = [
        0x00, 0x01, 0x2F, 0x41, 0x7F, 0x80, 0x81, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC1, 0xC2,
        0xDF, 0xE0, 0xE1, 0xEC, 0xED, 0xEE, 0xEF, 0xF0, 0xF1, 0xF3, 0xF4, 0xF5, 0xF8, 0xFC, 0xFF,
    ];

    /// Against the standard library, at any place in a word and at the end.
    #[test]
    fn utf8_is_what_the_standard_library_says() {
        let mut at = 0;
        for a in BYTES {
            for b in BYTES {
                for c in BYTES {
                    for d in BYTES {
                        let mut text = *b"abcdefghijklmnopqrstuvwxyz";
                        at = (at + 1) % 23;
                        text[at..at + 4].copy_from_slice(&[a, b, c, d]);
                        for text in [&text[..], &text[at..at + 4], &text[at..at + 3]] {
                            let valid = core::str::from_utf8(text).is_ok() && !text.contains(&0);
                            assert_eq!(check_text(text).is_ok(), valid, "{text:x?}");
                            assert_eq!(check_topic(text).is_ok(), valid, "{text:x?}");
                            assert_eq!(check_filter(text).is_ok(), valid, "{text:x?}");
                        }
                    }
                }
            }
        }
    }

    /// Every character, alone and behind others.
    #[test]
    fn every_character() {
        for character in '\u{1}'..=char::MAX {
            let mut bytes = *b"0123456789abcdef";
            let length = character.encode_utf8(&mut bytes[12..]).len();
            assert_eq!(check_text(&bytes[12..12 + length]), Ok(()));
            assert_eq!(check_text(&bytes[..12 + length]), Ok(()));
        }
    }

    /// All strings of up to 7 of these, against the rules level by level.
    #[test]
    fn wildcards_stand_alone_in_a_level() {
        let mut strings = vec![String::new()];
        for _ in 0..7 {
            strings = strings
                .iter()
                .flat_map(|string| ["", "a", "/", "+", "#"].map(|next| string.clone() + next))
                .collect();
            strings.sort();
            strings.dedup();
        }
        assert_eq!(
            strings.len(),
            (0..=7).map(|length| 4_usize.pow(length)).sum()
        );
        for string in strings {
            let levels: Vec<&str> = string.split('/').collect();
            let filter = !string.is_empty()
                && levels
                    .iter()
                    .enumerate()
                    .all(|(index, level)| match *level {
                        "+" => true,
                        "#" => index + 1 == levels.len(),
                        _ => !level.contains(['+', '#']),
                    });
            let topic = !string.is_empty() && !string.contains(['+', '#']);
            let expected = |good| if good { Ok(()) } else { Err(Malformed::Topic) };
            assert_eq!(
                check_filter(string.as_bytes()),
                expected(filter),
                "{string}"
            );
            assert_eq!(check_topic(string.as_bytes()), expected(topic), "{string}");
            assert_eq!(check_text(string.as_bytes()), Ok(()), "{string}");
        }
    }

    #[test]
    fn a_wildcard_or_a_nul_at_any_place() {
        for length in 1..40 {
            for at in 0..length {
                let mut text = vec![b'a'; length];
                for (byte, error) in [
                    (b'+', Malformed::Topic),
                    (b'#', Malformed::Topic),
                    (0, Malformed::Utf8),
                ] {
                    text[at] = byte;
                    assert_eq!(check_topic(&text), Err(error));
                }
                assert_eq!(check_text(&text), Err(Malformed::Utf8));
                assert_eq!(check_filter(&text), Err(Malformed::Utf8));
                text[at] = b'$';
                assert_eq!(check_topic(&text), Ok(()));
            }
        }
    }

    #[test]
    fn lengths() {
        let text = [b'a'; 65_536];
        for check in [check_text, check_topic, check_filter] {
            assert_eq!(check(&text), Err(Malformed::TooLong));
            assert_eq!(check(&text[1..]), Ok(()));
        }
        assert_eq!(check_text(b""), Ok(()));
        assert_eq!(check_topic(b""), Err(Malformed::Topic));
        assert_eq!(check_filter(b""), Err(Malformed::Topic));
    }
}
