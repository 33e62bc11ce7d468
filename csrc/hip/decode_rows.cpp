#include "hip/decode_rows.h"

#include <iterator>

namespace rocforge::gpu {

// csrc/hip/decode_rows_kernel.hip, once per shard of the formats.
void decode_shard_0(int format, OutType out_type, const DecodeRows &work, void *stream);
void decode_shard_1(int format, OutType out_type, const DecodeRows &work, void *stream);
void decode_shard_2(int format, OutType out_type, const DecodeRows &work, void *stream);
void decode_shard_3(int format, OutType out_type, const DecodeRows &work, void *stream);

void decode_rows(int format, OutType out_type, const DecodeRows &work, void *stream) {
  constexpr decltype(&decode_shard_0) kShards[] = {decode_shard_0, decode_shard_1, decode_shard_2, decode_shard_3};
  kShards[format % std::size(kShards)](format, out_type, work, stream);
}

}  // namespace rocforge::gpu
