//! What all pages have in common.

mod true_pages;
