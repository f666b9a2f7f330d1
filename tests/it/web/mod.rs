//! What all pages have in common.

mod branding;
mod languages;
mod true_pages;
