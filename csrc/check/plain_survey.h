// Surveys of the features over the whole map, and the way back from their gradients.
#pragma once

#include "plain.h"

namespace check {

struct Surveyed {
  Numbers first, second, ties;
};

// The largest and the mean feature over the channels, and how many channels have the largest, [B, T, h, w] each.
inline Surveyed survey_places(const Plain& plain) {
  const size_t places = plain.places();
  Surveyed found = {Numbers(places), Numbers(places), Numbers(places)};
  // No feature is less than 0, which the largest is to begin with.
  plain.each([&](int64_t, int64_t t, int64_t p, int64_t n) {
    Number& largest = found.first[plain.place(t, p)];
    if (plain.feature[n] > largest.value) largest = plain.feature[n];
    found.second[plain.place(t, p)] += plain.feature[n] / double(plain.channels);
  });
  plain.each([&](int64_t, int64_t t, int64_t p, int64_t n) {
    if (plain.feature[n] == found.first[plain.place(t, p)].value) found.ties[plain.place(t, p)] += 1.0;
  });
  return found;
}

// The means over the rows [B, C, kh, h] and over the columns [B, C, kw, w] of the map of taps.
inline Surveyed survey_lines(const Plain& plain) {
  const rfa::Shape& s = plain.s;
  Surveyed found = {Numbers(plain.row_lines()), Numbers(plain.column_lines()), {}};
  plain.each([&](int64_t c, int64_t t, int64_t p, int64_t n) {
    found.first[plain.row_line(c, t, p)] += plain.feature[n] / double(s.kernel_w * s.out_width);
    found.second[plain.column_line(c, t, p)] += plain.feature[n] / double(s.kernel_h * s.out_height);
  });
  return found;
}

// As SurveyBackwardArgs says: what ties share and what a mean divides by is in the given gradients already.
inline FeatureGradients survey_places_backward(const Plain& plain, const Numbers& largest) {
  Numbers grad_feature(plain.feature.size());
  plain.each([&](int64_t, int64_t t, int64_t p, int64_t n) {
    const int64_t at = plain.place(t, p);
    grad_feature[n] = plain.k.grad_mean[at];
    if (plain.feature[n] == largest[at].value) grad_feature[n] += Number(plain.k.grad_largest[at]);
  });
  return plain.differentiate(grad_feature, Numbers(plain.channels * plain.pixels));
}

inline FeatureGradients survey_lines_backward(const Plain& plain) {
  Numbers grad_feature(plain.feature.size());
  plain.each([&](int64_t c, int64_t t, int64_t p, int64_t n) {
    grad_feature[n] = Number(plain.k.grad_rows[plain.row_line(c, t, p)]) +
                      Number(plain.k.grad_columns[plain.column_line(c, t, p)]);
  });
  return plain.differentiate(grad_feature, Numbers(plain.channels * plain.pixels));
}

}  // namespace check
