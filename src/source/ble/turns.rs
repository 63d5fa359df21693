//! PURE Who may hold the radio: a cap on links, one connecting at a time, turns when there are more devices than links.
