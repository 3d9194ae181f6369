//! Where on the monitor each picture stands.

/// Width and height in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
}

/// A rectangle of the monitor, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Area {
    /// Left edge.
    pub x: u32,
    /// Upper edge.
    pub y: u32,
    /// At least 1 unless the monitor is too small for all.
    pub width: u32,
    /// At least 1 unless the monitor is too small for all.
    pub height: u32,
}

/// How many tiles there are for `count` pictures; those at the end may be empty.
pub fn tiles(count: usize) -> usize {
    let (columns, rows) = grid(count);
    (columns * rows) as usize
}

fn grid(count: usize) -> (u32, u32) {
    let columns = (1u32..).find(|columns| (*columns as usize).pow(2) >= count.max(1)).unwrap_or(1);
    (columns, (count.max(1) as u32).div_ceil(columns))
}

/// The tile of picture `index` of `count`: a grid as square as can be, row by row.
pub fn tile(monitor: Size, index: usize, count: usize) -> Area {
    let (columns, rows) = grid(count);
    let (column, row) = (index as u32 % columns, index as u32 / columns);
    let edge = |length: u32, position: u32, parts: u32| (u64::from(length) * u64::from(position) / u64::from(parts)) as u32;
    let (x, y) = (edge(monitor.width, column, columns), edge(monitor.height, row, rows));
    Area { x, y, width: edge(monitor.width, column + 1, columns) - x, height: edge(monitor.height, row + 1, rows) - y }
}

/// The largest area of the picture's aspect in the middle of a tile.
pub fn fit(picture: Size, tile: Area) -> Area {
    let (picture_width, picture_height) = (u64::from(picture.width.max(1)), u64::from(picture.height.max(1)));
    let (tile_width, tile_height) = (u64::from(tile.width), u64::from(tile.height));
    let (width, height) = if tile_width * picture_height <= tile_height * picture_width {
        (tile_width, tile_width * picture_height / picture_width)
    } else {
        (tile_height * picture_width / picture_height, tile_height)
    };
    let (width, height) = (width as u32, height as u32);
    Area { x: tile.x + (tile.width - width) / 2, y: tile.y + (tile.height - height) / 2, width, height }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MONITOR: Size = Size { width: 1280, height: 800 };

    #[test]
    fn one_picture_has_the_whole_monitor() {
        assert_eq!(tile(MONITOR, 0, 1), Area { x: 0, y: 0, width: 1280, height: 800 });
        let area = fit(Size { width: 320, height: 192 }, tile(MONITOR, 0, 1));
        assert_eq!(area, Area { x: 0, y: 16, width: 1280, height: 768 });
    }

    #[test]
    fn tiles_cover_the_monitor_without_overlap() {
        for count in 1..=81 {
            let mut covered = 0;
            for index in 0..tiles(count) {
                let area = tile(MONITOR, index, count);
                assert!(area.x + area.width <= MONITOR.width && area.y + area.height <= MONITOR.height);
                covered += area.width * area.height;
                for other in 0..index {
                    let other = tile(MONITOR, other, count);
                    assert!(
                        area.x >= other.x + other.width
                            || other.x >= area.x + area.width
                            || area.y >= other.y + other.height
                            || other.y >= area.y + area.height
                    );
                }
            }
            assert_eq!(covered, MONITOR.width * MONITOR.height);
        }
    }

    #[test]
    fn tall_and_wide_pictures_keep_their_aspect() {
        let tile = Area { x: 100, y: 50, width: 400, height: 400 };
        assert_eq!(fit(Size { width: 100, height: 200 }, tile), Area { x: 200, y: 50, width: 200, height: 400 });
        assert_eq!(fit(Size { width: 4096, height: 1 }, tile), Area { x: 100, y: 250, width: 400, height: 0 });
        assert_eq!(fit(Size { width: 800, height: 400 }, tile), Area { x: 100, y: 150, width: 400, height: 200 });
    }
}
