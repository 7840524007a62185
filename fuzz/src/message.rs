//! What several targets share: an input that looks like a message of HTTP, and a second, very plain reader of forms.

/// A first line, headers, an empty line, a body.
pub(crate) struct Message<'a> {
    pub(crate) first: &'a [u8],
    headers: Vec<(&'a [u8], &'a [u8])>,
    pub(crate) body: &'a [u8],
}

impl<'a> Message<'a> {
    pub(crate) fn read(data: &'a [u8]) -> Self {
        let (first, mut rest) = line(data);
        let mut headers = Vec::new();
        while !rest.is_empty() {
            let (header, after) = line(rest);
            rest = after;
            if header.is_empty() {
                break;
            }
            let colon = header.iter().position(|&b| b == b':');
            let colon = colon.unwrap_or(header.len());
            let value = header.get(colon + 1..).unwrap_or_default();
            headers.push((&header[..colon], value.strip_prefix(b" ").unwrap_or(value)));
        }
        Self {
            first,
            headers,
            body: rest,
        }
    }

    pub(crate) fn headers(&self, name: &str) -> Vec<&'a [u8]> {
        let named = self.headers.iter();
        let named = named.filter(|(own, _)| own.eq_ignore_ascii_case(name.as_bytes()));
        named.map(|(_, value)| *value).collect()
    }
}

fn line(data: &[u8]) -> (&[u8], &[u8]) {
    match data.iter().position(|&b| b == b'\n') {
        Some(end) => (&data[..end], &data[end + 1..]),
        None => (data, &[]),
    }
}

/// Returns the segments of a form, each as a name and a value. A segment that cannot be decoded is `None`.
pub(crate) fn segments(form: &[u8]) -> Vec<Option<(String, String)>> {
    form.split(|&b| b == b'&')
        .filter(|segment| !segment.is_empty())
        .map(|segment| {
            let mut halves = segment.splitn(2, |&b| b == b'=');
            let name = decoded(halves.next().unwrap_or_default())?;
            Some((name, decoded(halves.next().unwrap_or_default())?))
        })
        .collect()
}

/// Returns the text that form-encoded octets stand for, or `None` if they cannot be decoded.
pub(crate) fn decoded(raw: &[u8]) -> Option<String> {
    let hex = |b: u8| char::from(b).to_digit(16);
    let mut octets = Vec::new();
    let mut place = 0;
    while place < raw.len() {
        let octet = match raw[place] {
            b'+' => b' ',
            b'%' => {
                let (high, low) = (raw.get(place + 1)?, raw.get(place + 2)?);
                place += 2;
                u8::try_from(hex(*high)? * 16 + hex(*low)?).ok()?
            }
            plain => plain,
        };
        octets.push(octet);
        place += 1;
    }
    String::from_utf8(octets).ok()
}

/// Returns whether every character is in `%x20-7E`.
pub(crate) fn is_printable(text: &str) -> bool {
    text.chars().all(|c| (' '..='~').contains(&c))
}
