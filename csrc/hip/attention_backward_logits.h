// What stands between a score and its weight, for the tiles of attention's backward: softcap, ALiBi, masks and the rule
// of visibility. Rows: GradientRows; Work: GradientWork.
#pragma once

#include "hip/attention_backward_wave.h"
#include "hip/attention_backward_work.h"

namespace rocforge::gpu {

template <class T, class Use> ROCFORGE_DEVICE void with_mask_type(const Mask &mask, Use use) {
  if (mask.type == Element::kBool) {
    use([&](float x, int64_t at) { return static_cast<const bool *>(mask.data)[at] ? x : -kInfinity; });
  } else if (mask.type == Element::kFloat) {
    use([&](float x, int64_t at) { return x + static_cast<const float *>(mask.data)[at]; });
  } else {
    use([&](float x, int64_t at) { return x + to_float(static_cast<const T *>(mask.data)[at]); });
  }
}

// Scores become logits, and the gradients of weights those of the logits without the weight as a factor.
// `first_row`, `first_streamed`: of this lane. `terms(slot, k)`: RowTerms.
template <class K, class Rows, class Terms>
ROCFORGE_DEVICE void make_logits(const AttentionGradients &g, const GradientWork<K> &work,
                                 const typename GradientWork<K>::Place &p, Rows &rows, int first_row,
                                 int first_streamed, Terms terms) {
  constexpr bool kKeys = K::kOwnsKeys;
  const Attention &a = g.a;
  const float logit_scale = static_cast<float>(a.logit_scale), softcap = static_cast<float>(a.softcap);
  rows.change([&](float &x, float &grad, int s, int k) {
    x *= logit_scale;
    grad -= terms(s, k)[1];
    if (softcap != 0) {
      const float capped = 1 - 2 * fast_reciprocal(fast_exp2(x * (2 * kLog2E / softcap)) + 1);
      x = softcap * capped;
      grad *= 1 - capped * capped;
    }
  });
  const int64_t owned = work.owned.begin;
  if (a.alibi.data) {
    const AttentionRule &rule = work.sequence.rule;
    const float slope = head_number<float>(a.alibi, work.sequence.batch, kKeys ? p.head : work.head);
    const auto ahead = static_cast<int>(kKeys ? rule.position(p.row) - owned : rule.position(owned) - p.row);
    rows.change([&](float &x, float &, int s, int k) {
      const int r = Rows::row(first_row, s), c = first_streamed + k;
      x -= slope * fabsf(static_cast<float>(ahead + (kKeys ? c - r : r - c)));
    });
  }
  if (a.mask.data) {
    const int64_t start = mask_row(a, work.sequence, kKeys ? p.head : work.head, kKeys ? p.row : owned) +
                          (kKeys ? owned : p.row) * a.mask.key;
    // Opaque, or the offsets of all values are kept in registers from one tile to the next.
    const int64_t fixed_step = opaque(kKeys ? a.mask.key : a.mask.row);
    const int64_t step = opaque(kKeys ? a.mask.row : a.mask.key);
    const int valid = work.valid();
    with_mask_type<typename K::T>(a.mask, [&](auto masked) {
      rows.change([&](float &x, float &, int s, int k) {
        const int r = Rows::row(first_row, s), c = first_streamed + k;
        if (r < valid && c < p.left) x = masked(x, start + r * fixed_step + c * step);
      });
    });
  }
}

// The first of kMost keys from `key` on that a row sees, and how many.
using SeenKeys = Vec<int, 2>;
template <int kMost> ROCFORGE_DEVICE SeenKeys seen_keys(const AttentionRule &rule, int64_t row, int64_t key) {
  const KeyRange keys = rule.visible(row);
  const int begin = static_cast<int>(clamp(keys.begin - key, 0, kMost));
  return {{begin, static_cast<int>(clamp(keys.end - key, begin, kMost)) - begin}};
}
ROCFORGE_DEVICE bool sees(const SeenKeys &seen, int key) {
  return static_cast<uint32_t>(key - seen[0]) < static_cast<uint32_t>(seen[1]);
}

// Hides what the rule hides. `seen(k)`: of streamed query rows.
template <class K, class Rows, class Seen>
ROCFORGE_DEVICE void hide_unseen(const GradientWork<K> &work, const typename GradientWork<K>::Place &p, Rows &rows,
                                 int first_row, int first_streamed, Seen seen) {
  if constexpr (K::kOwnsKeys) {
    rows.change([&](float &x, float &, int s, int k) {
      if (!sees(seen(k), Rows::row(first_row, s))) x = -kInfinity;
    });
  } else {
    SeenKeys own[Rows::kSlots];
#pragma unroll
    for (int s = 0; s < Rows::kSlots; ++s) {
      own[s] = seen_keys<K::kTile.streamed>(work.sequence.rule, work.owned.begin + Rows::row(first_row, s), p.row);
      own[s][0] -= first_streamed;
    }
    rows.change([&](float &x, float &, int s, int k) {
      if (!sees(own[s], k)) x = -kInfinity;
    });
  }
}

}  // namespace rocforge::gpu
