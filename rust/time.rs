//! Time, as far as the engine knows it: milliseconds on a clock that wraps round.

/// A moment, in milliseconds of a free-running 32-bit clock. Two moments that are compared lie
/// less than 24 days apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Time(pub u32);

impl Time {
    /// So many milliseconds are as good as for ever, and less than half of the clock.
    /// cbindgen:ignore
    pub const FOREVER: u32 = 1 << 30;

    /// The moment `ms` later.
    pub const fn after(self, ms: u32) -> Time {
        Time(self.0.wrapping_add(ms))
    }

    /// Milliseconds from `earlier` to this moment; 0 if it is not later.
    pub const fn since(self, earlier: Time) -> u32 {
        let ms = self.0.wrapping_sub(earlier.0);
        if ms > u32::MAX / 2 { 0 } else { ms }
    }

    /// Has `deadline` come?
    pub const fn reached(self, deadline: Time) -> bool {
        self.0.wrapping_sub(deadline.0) <= u32::MAX / 2
    }

    /// The earlier of two moments.
    pub const fn min(self, other: Time) -> Time {
        if other.reached(self) { self } else { other }
    }
}
