//! What all pages have in common.

mod branding;
mod true_pages;
