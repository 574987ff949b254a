//! Character encodings: files in UTF-8 are read as they are, others are decoded first.

use super::format::binary;
use super::lines::BOM;
use crate::error::{Error, Result};
use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};
use encoding_rs::{UTF_8, UTF_16BE, UTF_16LE, WINDOWS_1252};
use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Read};
use std::path::Path;
use std::str::FromStr;

/// Largest file in another encoding than UTF-8, in bytes: it is decoded in memory.
const DECODED_BYTES_MAX: u64 = 256 << 20;
/// Largest file that is looked through for its encoding.
const GUESSED_BYTES_MAX: u64 = 1 << 30;

/// A character encoding, by any name that the WHATWG's Encoding Standard gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoding(&'static encoding_rs::Encoding);

impl FromStr for Encoding {
    type Err = Error;

    fn from_str(s: &str) -> Result<Encoding> {
        // Names that Python and Windows use and the standard does not.
        let name = match s.trim().to_ascii_lowercase().replace('_', "-").as_str() {
            "cp932" => "shift_jis".into(),
            "cp936" => "gbk".into(),
            "cp949" => "euc-kr".into(),
            "utf-8-sig" => "utf-8".into(),
            "utf-16-le" => "utf-16le".into(),
            "utf-16-be" => "utf-16be".into(),
            "latin-1" => "latin1".into(),
            "mac-roman" => "macintosh".into(),
            _ => s.to_owned(),
        };
        let known = encoding_rs::Encoding::for_label_no_replacement(name.as_bytes());
        known.map(Encoding).ok_or_else(|| {
            let what = format!(
                "unknown encoding `{s}`; known are utf-8, utf-16le, utf-16be, windows-1252, windows-1251, iso-8859-2, \
                 shift_jis, gb18030 and the others of the Encoding Standard"
            );
            Error::Config(what)
        })
    }
}

/// Whether [`open_text`] would look for the encoding of this file: not of a pipe, which can be read but once.
pub(super) fn guesses(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|file| file.is_file() && file.len() <= GUESSED_BYTES_MAX)
}

/// Opens a text file as UTF-8, decoding it if it is in another encoding.
///
/// Without `encoding`, a byte order mark tells, or zeros at every second byte (UTF-16). A file that is no UTF-8 at all is read
/// as Windows-1252 where it looks like it; `remarks` says so.
///
/// Errors: `Error::Io`; `Error::Data` for a file that is no text, or in an encoding that must be named.
pub fn open_text(
    path: &Path,
    encoding: Option<Encoding>,
    remarks: &mut Vec<String>,
) -> Result<Box<dyn BufRead + Send>> {
    let mut file = File::open(path).map_err(Error::io(path))?;
    let mut guess = None;
    if encoding.is_none() && guesses(path) {
        guess = guess_of(&mut file, path)?;
        file = File::open(path).map_err(Error::io(path))?;
        if guess.is_some() {
            remarks.push(format!(
                "{} is not UTF-8 and is read as Windows-1252; name another encoding with --encoding",
                path.display()
            ));
        }
    }
    decoded(BufReader::with_capacity(1 << 16, file), path, encoding.or(guess))
}

/// The text of a reader as UTF-8, see [`open_text`]; `path` is for messages.
pub(super) fn decoded<'r>(
    mut reader: impl BufRead + Send + 'r,
    path: &Path,
    encoding: Option<Encoding>,
) -> Result<Box<dyn BufRead + Send + 'r>> {
    let fail = |what: String| Error::data(path, None, what);
    let start = reader.fill_buf().map_err(Error::io(path))?;
    if let Some(what) = binary(start) {
        return Err(fail(format!("this is {what}")));
    }
    if start.starts_with(b"\xff\xfe\0\0") || start.starts_with(b"\0\0\xfe\xff") {
        return Err(fail("the file is in UTF-32; save it in UTF-8".into()));
    }
    let encoding = match encoding {
        Some(Encoding(encoding)) => encoding,
        None => by_mark(start).or_else(|| by_zeros(start)).unwrap_or(UTF_8),
    };
    if encoding == UTF_8 {
        return Ok(Box::new(reader));
    }
    let mut bytes = Vec::new();
    reader.take(DECODED_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(Error::io(path))?;
    if bytes.len() as u64 > DECODED_BYTES_MAX {
        let most = DECODED_BYTES_MAX >> 20;
        return Err(fail(format!(
            "{} files of more than {most} MiB are not read; save it in UTF-8",
            encoding.name()
        )));
    }
    let text = match encoding.decode_with_bom_removal(&bytes) {
        (text, false) => text.into_owned(),
        (text, true) => {
            let before = &text[..text.find('\u{fffd}').unwrap_or_default()];
            let line = before.matches('\n').count() + 1;
            let what = format!("the text is not {}; name its encoding with --encoding", encoding.name());
            return Err(Error::data(path, Some(line), what));
        }
    };
    Ok(Box::new(Cursor::new(text.into_bytes())))
}

fn by_mark(start: &[u8]) -> Option<&'static encoding_rs::Encoding> {
    encoding_rs::Encoding::for_bom(start).map(|(encoding, _)| encoding)
}

/// UTF-16 without a mark: nearly every second byte of a text in Latin letters is zero.
fn by_zeros(start: &[u8]) -> Option<&'static encoding_rs::Encoding> {
    let start = &start[..start.len().min(4096) & !1];
    let pairs = start.len() / 2;
    let zeros = |offset: usize| start[offset..].iter().step_by(2).filter(|&&b| b == 0).count();
    match () {
        _ if pairs < 4 => None,
        _ if 10 * zeros(1) > 8 * pairs && 10 * zeros(0) < pairs => Some(UTF_16LE),
        _ if 10 * zeros(0) > 8 * pairs && 10 * zeros(1) < pairs => Some(UTF_16BE),
        _ => None,
    }
}

/// Windows-1252, if a file is not UTF-8 and looks like it; nothing for UTF-8, for UTF-8 with a few bad bytes, and for what
/// cannot be told.
///
/// Errors: reading fails; the file is in another encoding, which the message names.
fn guess_of(file: &mut File, path: &Path) -> Result<Option<Encoding>> {
    let mut chunk = vec![0; 1 << 16];
    let (mut bytes, mut carried, mut bad) = (0u64, Vec::new(), false);
    while !bad {
        let n = file.read(&mut chunk).map_err(Error::io(path))?;
        if n == 0 {
            bad = !carried.is_empty();
            break;
        }
        let start = bytes == 0;
        bytes += n as u64;
        if start && (by_mark(&chunk[..n]).is_some() || by_zeros(&chunk[..n]).is_some()) {
            return Ok(None);
        }
        carried.extend_from_slice(&chunk[..n]);
        match std::str::from_utf8(&carried) {
            Ok(_) => carried.clear(),
            Err(e) if e.error_len().is_none() => drop(carried.drain(..e.valid_up_to())),
            Err(_) => bad = true,
        }
    }
    if !bad || bytes > DECODED_BYTES_MAX {
        return Ok(None);
    }
    let mut all = Vec::new();
    let file = File::open(path).map_err(Error::io(path))?;
    file.take(DECODED_BYTES_MAX).read_to_end(&mut all).map_err(Error::io(path))?;
    let (good, bad) = sequences(&all);
    if good >= bad || all.contains(&0) {
        return Ok(None);
    }
    // Marks and dashes that stand at the same place in all of Windows' encodings that English is written in.
    let is_mark = |b: &u8| {
        b.is_ascii() || b"\x80\x85\x91\x92\x93\x94\x95\x96\x97\x99\xa0\xa3\xa7\xa9\xae\xb0\xb7".contains(b)
    };
    if all.iter().all(is_mark) {
        return Ok(Some(Encoding(WINDOWS_1252)));
    }
    let mut detector = EncodingDetector::new(Iso2022JpDetection::Deny);
    detector.feed(&all, true);
    let guess = detector.guess(None, Utf8Detection::Deny);
    if guess == WINDOWS_1252 {
        return Ok(is_western(&all).then_some(Encoding(WINDOWS_1252)));
    }
    // A few odd bytes fit many encodings: only a file that is full of them names one.
    if bad < 8 || 50 * bad < all.len() {
        return Ok(None);
    }
    let what = format!(
        "the file is not UTF-8; it looks like {0}: if it is, say --encoding {0}, or save it in UTF-8",
        guess.name().to_ascii_lowercase()
    );
    Err(Error::data(path, None, what))
}

/// How many sequences of several bytes are valid in UTF-8, and how many bytes are not.
fn sequences(bytes: &[u8]) -> (usize, usize) {
    let (mut good, mut bad) = (0, 0);
    for chunk in bytes.utf8_chunks() {
        good += chunk.valid().chars().filter(|c| !c.is_ascii()).count();
        bad += chunk.invalid().len();
    }
    (good, bad)
}

/// Whether bytes read as Windows-1252 are text of a language that is written in it: no control characters, letters beyond
/// ASCII in words with others, and not too many of them.
fn is_western(bytes: &[u8]) -> bool {
    let (text, _) = WINDOWS_1252.decode_without_bom_handling(bytes);
    let is_fine = |c: char| !c.is_control() || matches!(c, '\t' | '\n' | '\r' | '\u{c}');
    let (mut letters, mut high, mut before) = (0usize, 0usize, ' ');
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let after = chars.peek().copied().unwrap_or(' ');
        let alone = !before.is_alphabetic() && !after.is_alphabetic();
        // Words of one letter are vowels.
        let stands_alone = alone && !"àáâäåæèéêìíòóôöøùúÀÁÂÄÅÆÈÉÊÌÍÒÓÔÖØÙÚªºµ".contains(c);
        let in_word = before.is_alphabetic() && after.is_alphabetic() && "¹²³¼½¾¤¦¬¶".contains(c);
        if !is_fine(c) || (!c.is_ascii() && c.is_alphabetic() && stands_alone) || in_word {
            return false;
        }
        letters += usize::from(c.is_alphabetic());
        high += usize::from(c.is_alphabetic() && !c.is_ascii());
        before = c;
    }
    3 * high <= letters
}

/// A reader whose byte order mark, if any, is taken off.
pub(super) fn skip_mark(reader: &mut impl BufRead, path: &Path) -> Result<()> {
    let start = reader.fill_buf().map_err(Error::io(path))?;
    if start.starts_with(BOM) {
        reader.consume(BOM.len());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is read of a file with these bytes, and the remarks.
    fn read(bytes: &[u8], encoding: Option<&str>) -> Result<(String, Vec<String>)> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f.tsv");
        std::fs::write(&path, bytes).unwrap();
        let (mut text, mut remarks) = (Vec::new(), Vec::new());
        let encoding = encoding.map(|name| name.parse().unwrap());
        open_text(&path, encoding, &mut remarks)?.read_to_end(&mut text).unwrap();
        Ok((String::from_utf8_lossy(&text).into_owned(), remarks))
    }

    fn utf16(text: &str, mark: bool, big: bool) -> Vec<u8> {
        let mark = mark.then_some(0xfeff).into_iter();
        let bytes = |unit: u16| if big { unit.to_be_bytes() } else { unit.to_le_bytes() };
        mark.chain(text.encode_utf16()).flat_map(bytes).collect()
    }

    fn in_1252(text: &str) -> Vec<u8> {
        WINDOWS_1252.encode(text).0.into_owned()
    }

    const TEXT: &str = "label\ttext\nspät\tDie Straße – „größer“ für 5 € 😀\n";

    #[test]
    fn utf_16_with_and_without_mark() {
        for (mark, big) in [(true, false), (true, true), (false, false), (false, true)] {
            assert_eq!(read(&utf16(TEXT, mark, big), None).unwrap(), (TEXT.to_owned(), vec![]));
        }
        let mut cut = utf16(TEXT, true, false);
        cut.pop();
        let e = read(&cut, None).unwrap_err().to_string();
        assert!(e.contains("f.tsv:2: the text is not UTF-16LE"), "{e}");
    }

    #[test]
    fn windows_1252_is_read_with_a_remark() {
        for text in [
            "label\ttext\nspät\tDie Straße ist größer, für 5 €\nfrüh\tschön\n",
            "label;text\nbon;Voilà – c’est à l’été où « tout » a été déjà vu\n",
            "label,text\nsí,¿Qué señal mañana? ¡Año nuevo!\n",
            "label,text\na,It’s fine – “really”\n",
            "v1,v2,,,\nham,\"Go until jurong point, crazy.. £5\",,,\n",
            "label,text\nbra,Vi får se på åtta ön där\n",
        ] {
            let (got, remarks) = read(&in_1252(text), None).unwrap();
            assert_eq!(got, text);
            assert!(remarks.len() == 1 && remarks[0].contains("is read as Windows-1252"), "{remarks:?}");
            assert_eq!(read(&in_1252(text), Some("cp1252")).unwrap(), (text.to_owned(), vec![]));
        }
    }

    #[test]
    fn other_encodings_are_named_or_asked_for() {
        let russian = "label\ttext\nда\tЭто очень хороший фильм, всем советую посмотреть\n".repeat(20);
        let bytes = encoding_rs::WINDOWS_1251.encode(&russian).0.into_owned();
        let e = read(&bytes, None).unwrap_err().to_string();
        assert!(e.contains("--encoding windows-1251"), "{e}");
        assert_eq!(read(&bytes, Some("windows-1251")).unwrap().0, russian);
        let polish = "label\ttext\nźle\tCzęść książek została już wcześniej spalona, więc żółć\n".repeat(20);
        let bytes = encoding_rs::WINDOWS_1250.encode(&polish).0.into_owned();
        let e = read(&bytes, None).unwrap_err().to_string();
        assert!(e.contains("--encoding windows-1250"), "{e}");
        let japanese = "label\ttext\n良い\tとても面白い映画でした。もう一度見たいです。\n".repeat(20);
        let bytes = encoding_rs::SHIFT_JIS.encode(&japanese).0.into_owned();
        let e = read(&bytes, None).unwrap_err().to_string();
        assert!(e.contains("--encoding shift_jis"), "{e}");
        assert_eq!(read(&bytes, Some("cp932")).unwrap().0, japanese);
        assert!(
            "klingon".parse::<Encoding>().unwrap_err().to_string().contains("unknown encoding `klingon`")
        );
        let e = read(&bytes[..bytes.len() - 1], Some("utf-16le")).unwrap_err().to_string();
        assert!(e.contains("the text is not UTF-16LE"), "{e}");
    }

    /// These are left to the reader of lines, which names the line and the byte.
    #[test]
    fn broken_utf_8_is_not_guessed_at() {
        for bytes in [
            &b"label\ttext\nbad\ta \xff box\n"[..],
            b"label,text\nbad,\xe2\x82\n",
            "gr\u{fc}n sch\u{f6}n\n".as_bytes().split_last().unwrap().1,
            b"gr\xc3\xbcn sch\xc3\xb6n \xc3\n",
            b"a\tb\n\x00\xff\n",
            b"\x81\x8d\x90 text\n",
        ] {
            let (_, remarks) = read(bytes, None).unwrap();
            assert!(remarks.is_empty(), "{bytes:?}");
        }
    }

    #[test]
    fn what_is_no_text_is_named() {
        for (bytes, word) in [
            (&b"PK\x03\x04..."[..], "spreadsheet"),
            (b"PAR1....", "Parquet"),
            (b"\xff\xfe\0\0a\0\0\0", "UTF-32"),
        ] {
            let e = read(bytes, None).unwrap_err().to_string();
            assert!(e.contains(word), "{e}");
        }
    }
}
