//! What all pages have in common.

mod branding;
mod landing;
mod languages;
mod true_pages;
mod ways_on;
