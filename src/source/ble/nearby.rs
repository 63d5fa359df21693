//! PURE What is near: a bounded list of the peripherals that were heard lately.
