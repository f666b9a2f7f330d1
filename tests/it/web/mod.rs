//! What all pages have in common.

mod languages;
mod true_pages;
