//! PURE What to try, rung by rung, when an adapter goes silent or hangs.
