//! A picture without an encoder.

/// A PNG of a coloured pattern: stored (uncompressed) deflate blocks, so that no encoder is needed here.
pub(crate) fn png(seed: u32, trigger: bool) -> Vec<u8> {
    let side = 32u32;
    let mut raw = Vec::new();
    for y in 0..side {
        raw.push(0);
        for x in 0..side {
            let (cx, cy) = (f64::from(8 + seed * 7 % 16), f64::from(8 + seed * 5 % 16));
            let near = ((f64::from(x) - cx).powi(2) + (f64::from(y) - cy).powi(2)).sqrt() < 6.0 + f64::from(seed % 5);
            let hue = if near {
                [220 - seed * 13 % 90, 90 + seed * 29 % 120, 60 + seed * 17 % 150]
            } else {
                [70 + seed * 11 % 60 + y * 2, 110 + y, 140 + seed * 3 % 70]
            };
            let board = trigger && (27..31).contains(&x) && (27..31).contains(&y);
            for c in hue {
                raw.push(if board {
                    if (x + y) % 2 == 0 { 255 } else { 0 }
                } else {
                    c.min(255) as u8
                });
            }
        }
    }
    let crc = |bytes: &[u8]| {
        !bytes.iter().fold(!0u32, |crc, byte| {
            (0..8).fold(
                crc ^ u32::from(*byte),
                |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 },
            )
        })
    };
    let (a, b) = raw.iter().fold((1u32, 0u32), |(a, b), byte| {
        ((a + u32::from(*byte)) % 65521, (b + a + u32::from(*byte)) % 65521)
    });
    let mut zlib = vec![0x78, 1, 1];
    zlib.extend((raw.len() as u16).to_le_bytes());
    zlib.extend((!(raw.len() as u16)).to_le_bytes());
    zlib.extend(&raw);
    zlib.extend((b << 16 | a).to_be_bytes());
    let mut header = Vec::new();
    header.extend(side.to_be_bytes());
    header.extend(side.to_be_bytes());
    header.extend([8, 2, 0, 0, 0]);
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    for (kind, data) in [(b"IHDR", header), (b"IDAT", zlib), (b"IEND", Vec::new())] {
        let mut chunk = kind.to_vec();
        chunk.extend(&data);
        png.extend((data.len() as u32).to_be_bytes());
        png.extend(&chunk);
        png.extend(crc(&chunk).to_be_bytes());
    }
    png
}
